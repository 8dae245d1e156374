"""The model card: everything a person should know of a model, rendered from the manifest alone."""

from __future__ import annotations

from mskd.spec import Label, Manifest, Metric, Terminology, TrainingData
from mskd.spec.trainingdata import QUANTILES, Span

UNITS = {"dice": "Dice", "hd95": "HD95 (mm)", "nsd": "NSD", "volume_error": "volume error (mL)"}


def render_card(manifest: Manifest) -> str:
    """The card as Markdown."""
    sections = [
        f"# {_plain(manifest.title)}\n\n{manifest.description or 'No description.'}",
        f"## Intended use\n\n{manifest.intended_use}",
        f"## Input\n\n{_input(manifest)}",
        f"## Labels\n\n{_labels(manifest.labels)}",
        *([f"## Training images\n\n{_training_images(manifest.training_data)}"] if manifest.training_data else []),
        f"## Measured\n\n{_metrics(manifest.metrics)}",
        f"## Network\n\n{_network(manifest)}",
        f"## Provenance\n\n{_provenance(manifest)}",
        f"## Licence\n\n{manifest.licence}",
        f"## Citation\n\n{manifest.citation or 'None given.'}",
    ]
    return "\n\n".join(sections) + "\n"


def _input(manifest: Manifest) -> str:
    channels = ", ".join(f"{_plain(channel.name)} ({channel.modality})" for channel in manifest.channels)
    spacing = " x ".join("as it is" if step is None else f"{step:g}" for step in manifest.spacing)
    rules = {
        "zscore": "each volume (or region of interest) to mean 0 and deviation 1",
        "clip_zscore": "clipped and scaled with the training data's values",
        "none": "not changed",
    }
    return _listed(
        {
            "Channels": channels,
            "Spacing (z, y, x)": f"{spacing} mm; other images are resampled",
            "Orientation": manifest.orientation,
            "Intensities": rules[manifest.normalization.name],
            "Trained on windows of": " x ".join(str(side) for side in manifest.patch),
        }
    )


def _training_images(known: TrainingData) -> str:
    """What an image is held against before it is segmented."""

    def spans(three: tuple[Span, Span, Span]) -> str:
        return " x ".join(f"{span.low:.4g}..{span.high:.4g}" for span in three)

    shares = ", ".join(f"{share:g}" for share in QUANTILES)
    facts = {"Images": str(known.cases), "Spacing (z, y, x)": f"{spans(known.spacing)} mm"}
    facts["Field of view (z, y, x)"] = f"{spans(known.extent)} mm"
    facts["Tilt"] = f"up to {known.tilt:.3g} degrees"
    for index, channel in enumerate(known.intensities, 1):
        ranges = ", ".join(f"{span.low:.4g}..{span.high:.4g}" for span in channel)
        facts[f"Percentiles {shares} inside the body, channel {index}"] = ranges
    return f"The 1st and 99th percentile over images; others are segmented with a warning.\n\n{_listed(facts)}"


def _labels(labels: tuple[Label, ...]) -> str:
    rows = [
        [str(label.value), label.name, "#{:02x}{:02x}{:02x}".format(*label.color), _code(label.terminology)]
        for label in labels
    ]
    return _table(["Value", "Name", "Colour", "Code"], rows)


def _code(terminology: Terminology | None) -> str:
    if terminology is None:
        return ""
    codes = [code for code in (terminology.type, terminology.type_modifier) if code is not None]
    return ", ".join(f"{code.meaning} ({code.scheme} {code.value})" for code in codes)


def _metrics(metrics: tuple[Metric, ...]) -> str:
    """One row per metric and label, one column per network that was measured on the same cases."""
    if not metrics:
        return "Nothing was measured."
    networks = list(dict.fromkeys(metric.network for metric in metrics))
    rows: dict[tuple[str, str, int, str], dict[str, str]] = {}
    for metric in metrics:
        key = (UNITS[metric.metric], metric.label, metric.cases, metric.split)
        rows.setdefault(key, {})[metric.network] = f"{metric.mean:.3f} ± {metric.std:.3f}"
    table = _table(
        ["Metric", "Label", "Cases", "Split", *networks],
        [[*map(str, key), *(figures.get(network, "-") for network in networks)] for key, figures in rows.items()],
    )
    return f"Mean ± standard deviation over cases.\n\n{table}"


def _network(manifest: Manifest) -> str:
    arguments = {f"`{key}`": f"`{value}`" for key, value in manifest.network.arguments.items()}
    return f"`{_plain(manifest.network.name)}`, version {manifest.version}.\n\n" + _listed(arguments)


def _provenance(manifest: Manifest) -> str:
    source = manifest.provenance
    facts = {
        "Method": source.method,
        "Data": source.data,
        "Fingerprint of the data": source.data_fingerprint,
        "Teacher": source.teacher,
        "Fingerprint of the teacher": source.teacher_fingerprint,
        "Recipe": f"{source.recipe['name']}, in full in model.json" if "name" in source.recipe else None,
        "Seed": source.seed,
        "Versions": ", ".join(f"{name} {version}" for name, version in source.versions.items()),
    }
    return _listed({name: str(value) for name, value in facts.items() if value not in (None, "")})


def _listed(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """One line that cannot break a table or heading."""
    return " ".join(text.replace("|", "/").split())
