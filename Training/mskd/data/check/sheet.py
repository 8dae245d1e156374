"""The contact sheet: one tile a case, those with a finding first and framed in red with the reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mskd.data.check.finding import Finding
from mskd.data.check.measure import Measured
from mskd.data.check.report import Report
from mskd.data.check.tile import TILE
from mskd.files import replacing
from mskd.spec import Label

PAGE, MOST_PAGES = 60, 20
MARGIN, HEAD = 14, 78  # pixels
CAPTION, LINE = 22, 12  # the id, and each line of reasons
DPI = 100
INK, RED, EMPTY = "#1d2733", "#c8102e", 236
LONGEST_ID, LONGEST_REASON = 26, 29  # characters under a tile
LEGEND = 12


def write_sheets(folder: Path, report: Report) -> list[Path]:
    """Write ``contact-sheet.png`` and, for more than 60 cases, ``contact-sheet-2.png`` and so on, 20 pages at most.

    The report's cases must have their tiles. Pages of an earlier check that this one does not need are removed.

    Raises:
        InputError: the folder is full or not writable.
    """
    reasons = _reasons(report.findings)
    order = sorted(report.cases, key=lambda case: case.id not in reasons)
    shown = order[: PAGE * MOST_PAGES]
    pages = math.ceil(len(shown) / PAGE)
    paths = [folder / f"contact-sheet{f'-{page + 1}' if page else ''}.png" for page in range(pages)]
    for page, path in enumerate(paths):
        title = f"{report.dataset.name}: {len(report.cases)} cases, {len(reasons)} with an error or a warning"
        if pages > 1:
            title += f" (page {page + 1} of {pages})"
        _write_page(path, title, shown[page * PAGE : (page + 1) * PAGE], reasons, report)
    for stale in set(folder.glob("contact-sheet-*.png")) - set(paths):
        stale.unlink()
    return paths


def _reasons(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Case -> names of the rules that framed it; notes frame nothing."""
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        for case in finding.cases if finding.severity != "note" else ():
            words = finding.rule.replace("-", " ")
            if words not in reasons.setdefault(case, []):
                reasons[case].append(words)
    return reasons


def _write_page(
    path: Path, title: str, cases: Sequence[Measured], reasons: dict[str, list[str]], report: Report
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = min(len(cases), max(4, math.ceil(math.sqrt(1.6 * len(cases)))))
    rows = math.ceil(len(cases) / columns)
    lines = min(2, max(len(reasons.get(case.id, [])) for case in cases))
    step = TILE + MARGIN, TILE + CAPTION + LINE * lines + MARGIN
    width, height = max(4, columns) * step[0] + MARGIN, HEAD + rows * step[1]
    canvas = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    for index, case in enumerate(cases):
        left, top = MARGIN + index % columns * step[0], HEAD + index // columns * step[1]
        _place(canvas, case, left, top)
        middle, below = left + TILE / 2, top + TILE
        axes.text(
            middle, below + 14, _shortened(case.id, LONGEST_ID), fontsize=7.5, color=INK, ha="center", va="center"
        )
        why = reasons.get(case.id, [])
        if why:
            axes.add_patch(Rectangle((left - 2.5, top - 2.5), TILE + 4, TILE + 4, fill=False, ec=RED, lw=2.5))
        for line, word in enumerate(why if len(why) < 3 else [why[0], f"{why[1]}, +{len(why) - 2}"]):
            words = _shortened(word, LONGEST_REASON)
            axes.text(middle, below + 27 + LINE * line, words, fontsize=7, color=RED, ha="center", va="center")
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.text(MARGIN, 24, title, fontsize=12, weight="bold", color=INK, va="center")
    _legend(axes, report, width)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _place(canvas: np.ndarray, case: Measured, left: int, top: int) -> None:
    """Copy a tile into the middle of its square; a case without one leaves it grey."""
    square = canvas[top : top + TILE, left : left + TILE]
    if case.tile is None:
        square[:] = EMPTY
        return
    square[:] = 0
    height, width = case.tile.shape[:2]
    y, x = (TILE - height) // 2, (TILE - width) // 2
    square[y : y + height, x : x + width] = case.tile


def _legend(axes: object, report: Report, width: int) -> None:
    """Names of the labels in their colours, along the second line."""
    from matplotlib.lines import Line2D

    labels = report.dataset.labels
    handles = [Line2D([], [], color=_rgb(label), lw=3, label=label.name) for label in labels[:LEGEND]]
    if len(labels) > LEGEND:
        handles.append(Line2D([], [], lw=0, label=f"and {len(labels) - LEGEND} more"))
    axes.legend(  # type: ignore[attr-defined]
        handles=handles,
        loc="center left",
        bbox_to_anchor=(MARGIN, 52),
        bbox_transform=axes.transData,  # type: ignore[attr-defined]
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        borderaxespad=0,
        handlelength=1.2,
        columnspacing=1.2,
    )


def _rgb(label: Label) -> tuple[float, float, float]:
    red, green, blue = label.color
    return red / 255, green / 255, blue / 255


def _shortened(text: str, longest: int) -> str:
    """The text, its middle left out where it is too long: ids differ in their ends."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[: longest - 1 - half]}…{text[-half:]}"
