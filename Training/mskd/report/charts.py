"""Curves over the steps of a run: as SVG inside a page, and for the demo as one PNG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from mskd.files import replacing

# Near Okabe and Ito's palette (2008), without its yellow and black: read on white and on black paper alike.
COLORS = ("#1f86c8", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8f6fd6", "#999999")
LINES = ("-", "--", ":")
MEAN = "mean"
MOST_NAMED = len(COLORS) * len(LINES)
MOST_TICKS = 80
LOG_RANGE = 20.0  # a linear axis hides nothing below this
INK = "#010203"  # stands for the colour of the page's text, which the page decides
SCREEN: Any = {
    **{f"{name}color": INK for name in ("text.", "axes.label", "axes.edge", "xtick.", "ytick.")},
    "svg.fonttype": "none",
    "svg.hashsalt": "mskd",  # the same curves give the same file
    "font.size": 9.5,
}
Row = Mapping[str, Any]
Limits = tuple[float, "float | None"]
Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def curves_of(rows: Sequence[Row], prefix: str) -> dict[str, tuple[list[float], list[float]]]:
    """Every column of a run's metrics that starts with ``prefix``: rest of its name -> (steps, values)."""
    names = dict.fromkeys(key for row in rows for key in row if key.startswith(prefix))
    found = {name.removeprefix(prefix): curve_of(rows, name) for name in names}
    return {name: curve for name, curve in found.items() if curve[0]}


def curve_of(rows: Sequence[Row], column: str) -> tuple[list[float], list[float]]:
    """(steps, values) of one column, where it has a value."""
    points = [(row["step"], row[column]) for row in rows if isinstance(row.get(column), (int, float))]
    points = [point for point in points if math.isfinite(point[1])]
    return [step for step, _ in points], [value for _, value in points]


def chart(curves: Curves, label: str, limits: Limits | None = None) -> str:
    """Curves as an SVG element whose text takes the colour of the page around it.

    Args:
        label: Of the vertical axis.
        limits: Of the vertical axis, linear; without them it is logarithmic where the values span decades.
    """
    with rc_context(SCREEN):
        figure = Figure(figsize=(5.2, 3.1), layout="constrained")
        draw(figure.subplots(), curves, label, limits)
        return _svg(figure)


def heat_map(values: np.ndarray, names: Sequence[str]) -> str:
    """A square matrix of values from 0 to 1 as an SVG element, small values lifted by a square root."""
    with rc_context(SCREEN):
        figure = Figure(figsize=(6.4, 6.4), layout="constrained")
        axes = figure.subplots()
        axes.imshow(np.sqrt(values), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xlabel="found", ylabel="true")
        if len(names) <= MOST_TICKS:
            places = range(len(names))
            axes.set_xticks(places, names, rotation=90, fontsize=6, parse_math=False)
            axes.set_yticks(places, names, fontsize=6, parse_math=False)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    head, _, text = text[text.index("<svg") :].replace(INK, "currentColor").partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)  # it is as wide as its place in the page
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # several charts share a page, where an id is unique
    return f"{head}>{text}"


def draw(axes: Axes, curves: Curves, label: str, limits: Limits | None = None) -> None:
    """Draw curves with a legend; the one called "mean" stands out."""
    for index, (name, (steps, values)) in enumerate(curves.items()):
        color, line = COLORS[index % len(COLORS)], LINES[index // len(COLORS) % len(LINES)]
        width = 1.4
        if name == MEAN:
            color, line, width = str(axes.xaxis.label.get_color()), "-", 2.2
        marker = "." if len(steps) <= 30 else ""
        axes.plot(steps, values, color=color, linestyle=line, linewidth=width, marker=marker, label=name)
    axes.set(xlabel="step", ylabel=label)
    axes.grid(color=axes.xaxis.label.get_color(), alpha=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    everything = [value for _, values in curves.values() for value in values]
    if limits is not None:
        axes.set_ylim(*limits)
    elif everything and min(everything) > 0 and max(everything) > LOG_RANGE * min(everything):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    if 1 < len(curves) <= MOST_NAMED:
        legend = axes.legend(frameon=False, fontsize=8, ncols=1 + len(curves) // 7)
        for text in legend.get_texts():
            text.set_parse_math(False)  # names are anybody's text, never formulas


def save_curves(path: Path, histories: Mapping[str, Sequence[Row]]) -> Path:
    """Validation Dice of several networks on the left, the loss terms of the last one on the right, as a PNG.

    Args:
        histories: Name -> rows of a run's metrics.jsonl (``step``, ``dice/mean``, ``loss/...``).
    """
    figure = Figure(figsize=(10.2, 3.6), dpi=110, layout="constrained")
    dice, losses = figure.subplots(1, 2)
    last, rows = list(histories.items())[-1]
    draw(
        dice,
        {name: curve_of(found, "dice/mean") for name, found in histories.items()},
        "mean Dice on the validation cases",
        (0, 1),
    )
    draw(losses, curves_of(rows, "loss/"), "loss (weighted term)")
    losses.set_title(last)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
