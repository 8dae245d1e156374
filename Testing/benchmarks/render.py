"""Writes the tables of measured results into README.md and Training/README.md, between two marks in each.

Each ``results/GROUP.ROW.json`` is what ``mskd evaluate`` wrote; rows of one GROUP were measured on the same cases.
A number in front of ROW (``1-teacher``) only sets the order. ``results/planned/*.json`` come from ``planned.py``.

    python Testing/benchmarks/render.py           rewrites the blocks
    python Testing/benchmarks/render.py --check   fails when a block is not what the files say
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mskd.evaluation.compare import comparison_sentence

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
BEGIN, END = "<!-- results: begin, written by Testing/benchmarks/render.py -->", "<!-- results: end -->"
NOTHING = "No results are committed yet."


def render(folder: Path = RESULTS) -> str:
    """Markdown of all groups, in order of their names."""
    groups: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        group, _, row = path.stem.partition(".")
        groups.setdefault(group, {})[row or path.stem] = json.loads(path.read_text(encoding="utf-8"))
    return "\n\n".join(_group(rows) for rows in groups.values()) or NOTHING


def _group(rows: dict[str, Any]) -> str:
    first = next(iter(rows.values()))
    measured = {(row["dataset"]["name"], tuple(row["dataset"]["cases"]), row["tolerance_mm"]) for row in rows.values()}
    if len(measured) > 1:
        raise ValueError(f"the results {sorted(rows)} were not measured on the same cases with the same tolerance")
    dataset = first["dataset"]
    about = (
        f"{dataset['name']}: {len(dataset['cases'])} cases ({dataset['part']}), mean ± standard deviation over cases."
    )
    comparisons = [_comparison(name, entry) for name, row in rows.items() for entry in row.get("comparison", ())]
    parts = [about, _table(rows), "\n".join(comparisons)]
    return "\n\n".join(part for part in parts if part)


def _table(rows: dict[str, Any]) -> str:
    first = next(iter(rows.values()))
    figures = [(label, "dice", 3) for label in first["labels"]]
    figures += [("mean", "dice", 3), ("mean", "hd95", 2), ("mean", "nsd", 3)]
    head = ["Network", "Weights", *(f"Dice {label}" for label in first["labels"]), "Dice", "HD95 (mm)"]
    head.append(f"NSD ({first['tolerance_mm']:g} mm)")
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, row in rows.items():
        cells = [_title(name), f"{row['model']['parameters']:,}"]
        cells += [_figure(row, label, metric, digits) for label, metric, digits in figures]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _comparison(name: str, entry: dict[str, Any]) -> str:
    """One line a paired comparison: the difference in mean Dice, its interval, and whether it is one at all."""
    figures, verdict = comparison_sentence(_title(name), _title(entry["against"]), entry)
    return f"- {figures}: **{verdict}**."


def _title(row: str) -> str:
    return row.lstrip("0123456789-").replace("-", " ")


def _figure(row: dict[str, Any], label: str, metric: str, digits: int) -> str:
    found = next(entry for entry in row["summary"] if (entry["label"], entry["metric"]) == (label, metric))
    return "-" if found["mean"] is None else f"{found['mean']:.{digits}f} ± {found['std']:.{digits}f}"


def render_planned(folder: Path = RESULTS / "planned") -> str:
    """Markdown table of the recipes that were planned, trained without editing, and measured on test cases."""
    head = ["Data set", "Network", "Patch", "Weights", "Steps", "s/step", "Hours", "Test cases", "Dice"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * (len(head) - 3)]
    for path in sorted(folder.glob("*.json")):
        table = json.loads(path.read_text(encoding="utf-8"))
        recipe, epochs = table["made_by"]["recipe"], table["made_by"]["epochs"]
        seconds = sum(epoch["seconds_per_step"] for epoch in epochs) / len(epochs)
        role = path.stem.partition(".")[2]
        cells = [
            table["dataset"]["name"],
            f"{len(recipe['input']['patch'])}D {role}",
            " x ".join(map(str, recipe["input"]["patch"])),
            f"{table['model']['parameters']:,}",
            f"{epochs[-1]['step']:,}",
            f"{seconds:.2f}",
            f"{epochs[-1]['step'] * seconds / 3600:.2f}",
            str(len(table["dataset"]["cases"])),
            _figure(table, "mean", "dice", 3),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def replaced(text: str, block: str) -> str:
    """``text`` with what lies between the marks replaced.

    Raises:
        ValueError: the marks are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"the text needs the marks '{BEGIN}' and '{END}', once each")
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    for name, block in (("README.md", render()), ("Training/README.md", render_planned())):
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        wanted = replaced(text, block)
        if "--check" in arguments and wanted != text:
            print(f"{name} does not show the committed results; run: python Testing/benchmarks/render.py")
            return 1
        page.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
