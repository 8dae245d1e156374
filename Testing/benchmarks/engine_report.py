"""Writes docs/engine-benchmark.md, and its chart, from what ``engine.py`` measured.

python Testing/benchmarks/engine_report.py            rewrites both
python Testing/benchmarks/engine_report.py --check    fails when the page is not what the results say
"""

from __future__ import annotations

import json
import sys
from math import floor, log10
from pathlib import Path
from typing import Any

from aims import Found, verdicts

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results" / "speed" / "engine.json"
GPU_RESULTS = RESULTS.with_name("gpu.json")
PAGE = ROOT / "docs" / "engine-benchmark.md"
CHART = ROOT / "docs" / "engine-benchmark.svg"
PHASES = ("read", "prepare", "network", "restore", "write", "other")
NOTHING = "No measurement is committed yet."
HEAD = """# The engine beside nnU-Net and MONAI

Written by `Testing/benchmarks/engine_report.py` from `Testing/benchmarks/results/speed/engine.json`; how it was
measured: `Testing/benchmarks/engine.py`."""
HOW = """## What is compared

From an image file to a labels file on the image's own grid, on the processor alone, each run in a process of its own.
The others take turns, once a round, and ours run after each of them; seconds are medians. They are wall-clock, without
the start of the process and, for the others, the loading of the model; memory is the process's largest resident size,
everything included.

- **mskd**: `mskd segment`; `auto` is the engine's own choice of backend.
- **nnunet**: nnU-Net's default network for its default patch (from its own planner, random weights) in its own
  predictor: half-overlapping windows, Gaussian weights, no mirroring, its own preprocessing, resampling and export,
  in one process.
- **nnunet-student**: the same predictor around our student, with the student's patch.
- **monai**: `SlidingWindowInfererAdapt` around our student, with MONAI's loading, resampling and `Invertd` of the
  logits; **monai-nearest** inverts labels instead, which is quicker and coarser at borders.
- **tuned**: with `MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` so that glibc keeps freed memory. The engine
  sees to that by itself.

The CT students (0.16 million weights, depthwise, 15 labels; `strided` halves the resolution in its stem) learnt for a
minute to tell air, lung, fat, soft tissue and bone apart, so that their label maps have borders like real ones: they
are there to be timed. Roofline: the plan's floating-point operations at the speed of this machine's float32 matrix
product."""


def render(found: Found | None, gpu: Found | None = None) -> str:
    """The page, from what ``engine.py`` and, on a GPU, ``Testing/gpu/benchmark.py`` measured."""
    if found is None:
        return f"{HEAD}\n{NOTHING}\n\n{HOW}\n"
    images = dict.fromkeys(row["image"] for row in found["summary"])
    parts = [HEAD.rstrip(), _machine(found), "## Aims\n\n" + _aims(found)]
    parts.append(f"![Seconds by phase of every contender]({CHART.name})")
    parts += [f"## {image.capitalize()}\n\n{_table(found, image)}" for image in images]
    parts += [part for part in (_roofline(found), _agreement(found), _guard(found), _gpu(gpu), HOW) if part]
    return "\n\n".join(parts) + "\n"


def _machine(found: Found) -> str:
    about, packages = found["machine"], found["versions"]
    flags = ", ".join(about["flags"]) or "none of those looked for"
    named = ", ".join(f"{name} {value}" for name, value in packages.items() if value)
    return (
        f"{about['processor']} ({flags}), {about['threads']} of {about['cores']} cores, {about['memory_gb']:g} GB, "
        f"{about['system']}. {named}. `{found['command']}`"
    )


def _aims(found: Found) -> str:
    words = {True: "met", False: "**not met**", None: "not measured"}
    rows = [(verdict.aim, verdict.found or "-", words[verdict.met]) for verdict in verdicts(found)]
    return markdown_table(("Aim (chest CT)", "Found", ""), rows)


def _table(found: Found, image: str) -> str:
    rows = [row for row in found["summary"] if row["image"] == image]
    fastest = min((row["seconds"]["total"] for row in rows if "seconds" in row), default=0.0)
    lines, notes = [], []
    for row in sorted(rows, key=_total):
        if "failed" in row:
            lines.append((row["contender"], f"failed (code {row['failed']['code']})", *("",) * (len(PHASES) + 2)))
            continue
        seconds = row["seconds"]
        phases = [f"{_phase(seconds, name):.2f}" for name in PHASES]
        star = "*" if row.get("extrapolated") else ""
        total = f"{seconds['total']:.2f}{star}"
        lines.append((row["contender"], total, f"{seconds['total'] / fastest:.1f}", *phases, f"{row['peak_mb']:.0f}"))
        if star:
            notes.append(_note(row))
    head = ("Contender", "Seconds", "Times the fastest", *(name.capitalize() for name in PHASES), "Peak MB")
    return "\n\n".join([markdown_table(head, lines), *notes])


def _note(row: Found) -> str:
    added = row["extrapolated"]
    counts = f"{added['windows_computed']} of {added['windows_total']} windows were computed"
    return (
        f"\\* {row['contender']}: extrapolated. {counts}, the rest counted with their median of "
        f"{added['seconds_per_window']:.2f} s; all else was measured in full."
    )


def _roofline(found: Found) -> str:
    entries = found.get("roofline", {})
    rows = [
        (
            name,
            f"{entry['gflops']:.0f}",
            f"{entry['gflops_per_second']:.0f}",
            f"{entry['seconds']:.2f}",
            f"{entry['times_roofline']:.1f}",
        )
        for name, entry in entries.items()
    ]
    head = ("Run", "GFLOP", "GFLOP/s of the machine", "Roofline (s)", "Network, times the roofline")
    return "## Roofline\n\n" + markdown_table(head, rows) if rows else ""


def _agreement(found: Found) -> str:
    rows = [
        (image, " and ".join(share["between"]), f"{100 * share['equal']:.1f} %")
        for image, entry in found.get("agreement", {}).items()
        for share in entry["shares"]
    ]
    if not rows:
        return ""
    text = "Voxels with the same label, from the same student (their windows and interpolation differ):"
    return f"## Same work\n\n{text}\n\n" + markdown_table(("Image", "Between", "Equal"), rows)


def _guard(found: Found) -> str:
    entry = found.get("guard")
    if not entry:
        return ""
    dice = f"mean Dice {entry['mean_dice']:.4f}, least {entry['least_dice']:.4f}"
    engine = f"the engine ({entry['backend']}, {entry['whole_volumes']} whole volumes)"
    about = f"{entry['model']} on {entry['images']} images: {dice}, between {engine}"
    return f"## Accuracy\n\n{about} and plain float32 windows of half overlap."


def _gpu(found: Found | None) -> str:
    if found is None:
        return ""
    lines = []
    for student, contenders in found["students"].items():
        for name, row in contenders.items():
            seconds = row["seconds"]
            network = seconds.get("network", seconds.get("engine: windows", 0.0))
            figures = (seconds["total"], seconds["read"], network, seconds["write"], row["first_total"])
            shown = (f"{value:.2f}" for value in figures)
            lines.append((f"{name} {student}", *shown, f"{row['peak_mb']:.0f}"))
    ours = [contenders["mskd"] for contenders in found["students"].values()]
    equal = ", ".join(f"{100 * row['equal_to_cpu']:.2f} %" for row in ours)
    kinds = " and ".join(dict.fromkeys(row["precision"] for row in ours))
    theirs = " MONAI's is `SlidingWindowInfererAdapt` in float16, with everything on the GPU."
    theirs = theirs if any("monai" in contenders for contenders in found["students"].values()) else ""
    met = "met" if all(row["under_aim"] for row in ours) else "**not met**"
    text = (
        f"{found['device']}, {found['machine']['threads']} cores, torch {found['versions']['torch']}; the chest CT, "
        f"model loaded, medians of {found['rounds']} runs from file to labels file (`Testing/gpu/benchmark.py`). "
        f"Less than {found['aim_seconds']:g} s: {met}. The networks compute in {kinds}; "
        f"{equal} of the voxels get the label they get on the processor in float32.{theirs}"
    )
    head = ("Contender", "Seconds", "Read", "Network", "Write", "First run", "Peak MB of the GPU")
    return f"## On a GPU\n\n{text}\n\n{markdown_table(head, lines)}"


def markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _total(row: Found) -> float:
    return row["seconds"]["total"] if "seconds" in row else float("inf")


def _phase(seconds: dict[str, float], name: str) -> float:
    """Seconds of a phase; ``other`` is whatever has no column of its own."""
    if name != "other":
        return seconds.get(name, 0.0)
    return max(0.0, seconds["total"] - sum(seconds.get(phase, 0.0) for phase in PHASES[:-1]))


def draw(found: Found, path: Path) -> None:
    """Bars of seconds, a panel an image, on a scale that shows both ends."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mskd"
    from matplotlib import pyplot

    images = list(dict.fromkeys(row["image"] for row in found["summary"]))
    counts = [sum(row["image"] == image and "seconds" in row for row in found["summary"]) for image in images]
    figure, panels = pyplot.subplots(
        len(images), 1, figsize=(9, 1.2 * len(images) + 0.32 * sum(counts)), height_ratios=counts, squeeze=False
    )
    for panel, image in zip(panels[:, 0], images, strict=True):
        _panel(panel, sorted((row for row in found["summary"] if row["image"] == image), key=_total), image)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _panel(panel: Any, rows: list[Found], image: str) -> None:
    rows = [row for row in rows if "seconds" in row][::-1]
    names = [row["contender"] for row in rows]
    totals = [row["seconds"]["total"] for row in rows]
    colours = ["#0b6e4f" if row["kind"] == "mskd" else "#8a8f98" for row in rows]
    start = 10 ** floor(log10(min(totals)))  # not 0, which a logarithmic scale has not
    bars = panel.barh(names, [total - start for total in totals], left=start, color=colours)
    texts = [f"{total:.2f} s, {row['peak_mb'] / 1000:.1f} GB" for total, row in zip(totals, rows, strict=True)]
    panel.bar_label(bars, texts, padding=4)
    panel.set_xscale("log")
    panel.tick_params(axis="x", which="minor", labelbottom=False)  # they would overlap within one decade
    panel.set_xlim(start, 4 * max(totals))
    panel.set_xlabel("seconds from file to labels file (logarithmic)")
    panel.set_title(image, loc="left")
    panel.spines[["top", "right"]].set_visible(False)


def main(arguments: list[str]) -> int:
    found, gpu = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None for path in (RESULTS, GPU_RESULTS)
    )
    page = render(found, gpu)
    if "--check" in arguments:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
            return 0
        print(f"{PAGE.name} does not show the committed results; run: python Testing/benchmarks/engine_report.py")
        return 1
    PAGE.write_text(page, encoding="utf-8")
    if found is not None:
        draw(found, CHART)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
