"""How the three networks learnt, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#0072b2", "#999999", "#d55e00")


def save_curves(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Validation Dice of every network on the left, the loss terms of the last one on the right.

    Args:
        histories: Name -> rows of a run's metrics.jsonl (``step``, ``dice/mean``, ``loss/...``).
    """
    figure = Figure(figsize=(10.2, 3.6), dpi=110, layout="constrained")
    dice, losses = figure.subplots(1, 2)
    for (name, rows), color in zip(histories.items(), COLORS, strict=False):
        dice.plot(*_series(rows, "dice/mean"), marker=".", color=color, label=name)
    dice.set(xlabel="step", ylabel="mean Dice on the validation cases", ylim=(0, 1))
    last = list(histories)[-1]
    terms = sorted({key for row in histories[last] for key in row if key.startswith("loss/")})
    for term in terms:
        losses.plot(*_series(histories[last], term), marker=".", label=term.removeprefix("loss/"))
    losses.set(xlabel="step", ylabel="loss (weighted term)", title=last, yscale="log")
    for axes in (dice, losses):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
    return path


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]
