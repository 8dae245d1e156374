"""``report.html``: one file that shows the whole demo, with its pictures inside."""

from __future__ import annotations

import html
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from mskd import __version__
from mskd.demo.brain import Brain
from mskd.demo.run import STUDENT, Demo
from mskd.files import write_text
from mskd.report.page import card, image, page, table
from mskd.report.results import per_label


def write_report(demo: Demo) -> Path:
    """Write the report of a finished demo, and return its path."""
    body = [
        _opening(demo),
        "<h2>Settings</h2>",
        card(_settings(demo)),
        "<h2>Three networks on held-out phantoms</h2>",
        per_label(demo.tables),
        "<h2>Training</h2>",
        card(image(demo.settings.curves, "Validation Dice of the three networks, and the student's loss terms")),
        "<h2>A volume on an awkward grid</h2>",
        _oblique(demo),
        "<h2>Real anatomy: both hippocampi of the MNI152 template</h2>",
        _brain(demo.brain),
        "<h2>What to do next</h2>",
        _next(demo),
    ]
    write_text(demo.settings.report, page("MSKD demo", body))
    return demo.settings.report


def _opening(demo: Demo) -> str:
    teacher, alone, student = demo.models
    dice = {name: found.summary("mean", "dice").mean for name, found in demo.tables.items()}
    ratio = teacher.parameters / student.parameters
    return (
        "<h1>MSKD: the whole road, once</h1>"
        '<p class="lead">A heavy teacher was trained on a multi-organ phantom, and a light student twice with the same '
        f"budget and seed: alone, and under the teacher. The student has {student.parameters:,} weights, "
        f"{ratio:.0f} times fewer than the teacher. On {len(demo.split.test)} phantoms that no training saw, the mean "
        f"Dice is {dice[teacher.name]:.3f} for the teacher, {dice[alone.name]:.3f} for the student alone and "
        f"{dice[student.name]:.3f} for the student with MSKD.</p>"
        '<p class="note">One seed and a budget of minutes: this shows that every part works together on this machine. '
        "It is no comparison of methods, and a difference smaller than the spread below means nothing. The "
        "distillation terms are a reconstruction from the abstract of Zhao et al., Computers in Biology and Medicine "
        "164:107284 (2023). Research use only; not a medical device.</p>"
    )


def _settings(demo: Demo) -> str:
    recipe, split = demo.recipe, demo.split
    head = ["Network", "Family", "Weights", "Steps", "Batch", "Learning rate", "Seconds per step"]
    rows = []
    for model in demo.models:
        role = recipe.role("teacher" if model is demo.models[0] else "student")
        last = model.history[-1] if model.history else {}
        speed = f"{last['seconds_per_step']:.3f}" if "seconds_per_step" in last else "-"
        budget = role.optimization
        name = model.name + (" (from an earlier run)" if model.reused else "")
        rows.append(
            [name, role.network, f"{model.parameters:,}", budget.steps, budget.batch, budget.learning_rate, speed]
        )
    versions = next(iter(demo.tables.values())).about["versions"]
    facts = {
        "Data": f"{len(split.train)} training, {len(split.validation)} validation and {len(split.test)} test phantoms, "
        f"{demo.settings.shape} voxels (z, y, x) of {demo.settings.spacing} mm",
        "Recipe": f"{recipe.name}, seed {recipe.seed}",
        "Distillation": ", ".join(f"{name} {_terms(term)}" for name, term in recipe.distillation.terms.items()),
        "Versions": ", ".join(f"{name} {value}" for name, value in {"mskd": __version__, **versions}.items()),
    }
    lines = "".join(f"<p><b>{name}.</b> {html.escape(str(text))}</p>" for name, text in facts.items())
    return table(head, rows, text_columns=(0, 1)) + lines


def _terms(settings: Mapping[str, object]) -> str:
    return "(" + ", ".join(f"{key} {value}" for key, value in settings.items()) + ")" if settings else ""


def _oblique(demo: Demo) -> str:
    report = demo.oblique_report
    volumes = report["volumes_ml"]
    head = ["Segment", "Dice against the phantom's truth", "Volume found (mL)"]
    rows = [[name, f"{dice:.3f}", f"{volumes[name]:.1f}"] for name, dice in demo.oblique_dice.items()]
    words = (
        f"<p>The {STUDENT}, read from its package, segmented an anatomy of no data set on a rotated, flipped grid "
        f"with thick slices in {report['milliseconds']['total'] / 1000:.2f} s on {html.escape(str(report['device']))}. "
        f"<code>{demo.settings.volume.name}</code> and <code>{demo.settings.segmentation.name}</code> open in 3D "
        "Slicer on the same grid, with named and coloured segments.</p>"
    )
    return words + card(
        image(demo.settings.overlay, "Contours of the student on the oblique volume") + table(head, rows)
    )


def _brain(brain: Brain | str) -> str:
    if isinstance(brain, str):
        return f"<p>{html.escape(brain)}</p>"
    labels = list(next(iter(brain.volumes.values())))
    head = ["Side", *(f"{label} (mL)" for label in labels), "Together (mL)"]
    rows = [
        [side, *(f"{found[label]:.2f}" for label in labels), f"{sum(found.values()):.2f}"]
        for side, found in brain.volumes.items()
    ]
    words = (
        "<p>The bundled hippocampus student, in one box around each hippocampus of the MNI152 T1 template, took "
        f"{brain.milliseconds / 1000:.2f} s for both. The template is an average of 152 heads: no truth exists for it, "
        "so look at the contours. Its copyright notice lies beside it in <code>brain/NOTICE.txt</code>.</p>"
    )
    return words + card(image(brain.overlay, "Contours of both hippocampi on the template") + table(head, rows))


def _next(demo: Demo) -> str:
    model = demo.models[-1].package.path
    lines = next_steps(model, demo.settings.output)
    return "<pre><code>" + html.escape("\n".join(f"# {says}\n{command}" for says, command in lines)) + "</code></pre>"


def next_steps(model: Path, output: Path) -> list[tuple[str, str]]:
    """(what it does, command) for whoever has just seen the demo."""
    mskd = _program()
    return [
        ("what the student is", f"{mskd} info {model}"),
        (
            "segment a volume with it",
            f"{mskd} segment {output / 'volume.nii.gz'} --model {model} --output mine.seg.nrrd",
        ),
        ("train a teacher on your own data set", f"{mskd} train DATASET --recipe hippocampus --output runs/teacher"),
        (
            "distil a student from it",
            f"{mskd} distill DATASET --teacher runs/teacher/model --recipe hippocampus --output runs/student",
        ),
    ]


def _program() -> str:
    """How to start mskd from this folder: by its name, or in the environment that `make demo` made."""
    here = Path(sys.prefix) / "bin" / "mskd"
    if shutil.which("mskd") or not here.is_file():
        return "mskd"
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)
