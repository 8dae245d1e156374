"""A picture of truth against prediction: contours on one slice of each axis, on black as in a reading room."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import linear_sum_assignment

from mskd.files import replacing
from mskd.image import Geometry, Image, LabelMap
from mskd.spec import IGNORE, Label

AXES = ("axial", "coronal", "sagittal")
PANEL_INCHES = 3.4  # the mean width of a panel
TALLEST_INCHES = 6.0
TITLE_INCHES, LEGEND_INCHES = 0.35, 0.25
DOTS_PER_INCH = 110
PAPER, INK = "#0d1014", "#e3e8ee"
Rgb = tuple[float, float, float]
Show = Literal["labels", "errors"]


@dataclass(frozen=True)
class Scene:
    """What is drawn, with arrays turned so that z, y, x grow towards head, back and left, as far as the grid allows."""

    grey: np.ndarray
    truth: np.ndarray | None
    predictions: Mapping[str, np.ndarray]
    labels: Sequence[Label]
    spacing: tuple[float, ...]

    @property
    def maps(self) -> list[np.ndarray]:
        return [*([] if self.truth is None else [self.truth]), *self.predictions.values()]

    @property
    def reference(self) -> np.ndarray:
        """What decides which slices are shown: the truth, or else the first prediction that found anything."""
        return next((array for array in self.maps if array.any()), self.maps[0])

    def slice(self, axis: int, show: Show) -> int:
        if show == "errors" and self.truth is not None:
            return error_slice(self.truth, list(self.predictions.values()), axis, len(self.labels) + 1)
        return best_slice(self.reference, axis)


def overlay(
    image: Image,
    truth: LabelMap | None,
    predictions: Mapping[str, LabelMap],
    labels: Sequence[Label],
    *,
    margin: float | None = None,
    axes: Sequence[int] = (0, 1, 2),
    show: Show = "labels",
    legend: bool = True,
) -> Figure:
    """Draw one row a prediction and one column an axis, in the right proportions.

    Args:
        image: Its first channel is shown.
        truth: Drawn dashed and white, where there is one and the row differs from it; what it ignores is not drawn.
        predictions: Row title -> labels on the image's grid, drawn solid in the labels' colours.
        labels: Names and colours of the legend.
        margin: Show only what the labels occupy and this many mm around it; None shows the whole image.
        axes: Which of axial (0), coronal (1) and sagittal (2).
        show: The slices that show most of the ``labels``, or those whose ``errors`` cost most Dice.

    Raises:
        ValueError: no prediction, or a grid that is not the image's.
    """
    maps = [*([truth] if truth else []), *predictions.values()]
    if not predictions or not all(found.geometry.matches(image.geometry) for found in maps):
        raise ValueError("an overlay needs at least one prediction, and label maps on the image's own grid")
    turn = Upright(image.geometry)
    scene = Scene(
        grey=turn(image.array[0]),
        truth=turn(np.where(truth.array == IGNORE, 0, truth.array)) if truth else None,
        predictions={title: turn(found.array) for title, found in predictions.items()},
        labels=labels,
        spacing=turn.spacing,
    )
    return _figure(scene if margin is None else _cropped(scene, margin), axes, show, legend)


def save_overlay(
    path: Path,
    image: Image,
    truth: LabelMap | None,
    predictions: Mapping[str, LabelMap],
    labels: Sequence[Label],
    *,
    margin: float | None = None,
) -> Path:
    """Write :func:`overlay` as a PNG, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(png(overlay(image, truth, predictions, labels, margin=margin)))
    return path


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def pixels(figure: Figure) -> np.ndarray:
    """A figure as uint8 ``[height, width, 3]``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba")
    width, height = figure.canvas.get_width_height()
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3]


def best_slice(labels: np.ndarray, axis: int) -> int:
    """The slice across ``axis`` that shows most of all labels, each measured against its own largest section."""
    others = tuple(other for other in range(3) if other != axis)
    shown = np.zeros(labels.shape[axis])
    for value in np.unique(labels[labels > 0]):
        area = (labels == value).sum(axis=others)
        shown += area / area.max()
    return int(np.argmax(shown))


def error_slice(truth: np.ndarray, predictions: Sequence[np.ndarray], axis: int, classes: int) -> int:
    """The slice across ``axis`` whose errors cost most Dice, all labels alike; without an error, the best slice.

    A voxel that is wrong for label k costs 1 / (voxels of k in truth + in prediction): an overlooked small organ counts
    as much as a large one that was overlooked. Voxels whose truth is no class (marked to be ignored) cost nothing.
    """
    others = tuple(other for other in range(3) if other != axis)
    cost = np.zeros(truth.shape[axis])
    for prediction in predictions:
        wrong = (truth != prediction) & (truth < classes)
        for value in np.unique([*np.unique(truth[wrong]), *np.unique(prediction[wrong])]):
            ours, theirs = prediction == value, truth == value
            if value:
                cost += (wrong & (ours | theirs)).sum(axis=others) / (ours.sum() + theirs.sum())
    return int(np.argmax(cost)) if cost.any() else best_slice(truth, axis)


class Upright:
    """Turns arrays of one grid to the nearest axis-aligned LPS order by swapping and flipping axes."""

    def __init__(self, geometry: Geometry) -> None:
        closeness = np.abs(geometry.matrix)
        _, columns = linear_sum_assignment(-closeness)
        signs = [geometry.matrix[world, index] for world, index in enumerate(columns)]
        # World and index axes are (x, y, z); arrays are (z, y, x).
        self._order = [2 - int(index) for index in columns[::-1]]
        self._flips = tuple(axis for axis, sign in enumerate(signs[::-1]) if sign < 0)
        self.spacing = tuple(geometry.spacing[axis] for axis in self._order)

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return np.flip(array.transpose(self._order), self._flips)


def _cropped(scene: Scene, margin: float) -> Scene:
    """The scene around everything that truth or predictions mark."""
    occupied = np.argwhere(np.any([array > 0 for array in scene.maps], axis=0))
    if not len(occupied):
        return scene
    extra = [round(margin / step) for step in scene.spacing]
    box = tuple(
        slice(max(0, int(low) - more), int(high) + 1 + more)
        for low, high, more in zip(occupied.min(axis=0), occupied.max(axis=0), extra, strict=True)
    )
    return replace(
        scene,
        grey=scene.grey[box],
        truth=None if scene.truth is None else scene.truth[box],
        predictions={title: array[box] for title, array in scene.predictions.items()},
    )


def _figure(scene: Scene, axes: Sequence[int], show: Show, legend: bool) -> Figure:
    handles = _handles(scene) if legend else []
    columns = min(len(axes) * 2, len(handles)) or 1
    sides = [[scene.grey.shape[side] * scene.spacing[side] for side in range(3) if side != axis] for axis in axes]
    widths = [width for _, width in sides]
    inches_per_mm = PANEL_INCHES * len(axes) / sum(widths)  # all panels on one scale
    height = min(max(height for height, _ in sides) * inches_per_mm, TALLEST_INCHES) + TITLE_INCHES
    rows, lines = len(scene.predictions), -(-len(handles) // columns)
    size = PANEL_INCHES * len(axes), height * rows + LEGEND_INCHES * (lines + bool(lines))
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, len(axes), squeeze=False, width_ratios=widths)
    window = _window(scene)
    for panels, (title, prediction) in zip(grid, scene.predictions.items(), strict=True):
        for axis, panel in zip(axes, panels, strict=True):
            _draw(panel, scene, prediction, axis, scene.slice(axis, show), window)
            name = f"{title}: {AXES[axis]}" if title else AXES[axis]
            panel.set_title(name, fontsize=10, color=INK, parse_math=False)
    if handles:
        _legend(figure, handles, columns)
    return figure


def _legend(figure: Figure, handles: list[Line2D], columns: int) -> None:
    drawn = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=10)
    for text in drawn.get_texts():
        text.set(color=INK, parse_math=False)  # names are anybody's text, never formulas


def _handles(scene: Scene) -> list[Line2D]:
    handles = [Line2D([], [], color=_rgb(label), lw=3, label=label.name) for label in scene.labels]
    if scene.truth is not None:
        handles.append(Line2D([], [], color="white", lw=1.5, ls="--", label="truth (dashed)"))
    return handles


def _draw(
    panel: Axes, scene: Scene, prediction: np.ndarray, axis: int, index: int, window: tuple[float, float]
) -> None:
    height, width = (step for other, step in enumerate(scene.spacing) if other != axis)
    plane = np.take(scene.grey, index, axis)
    panel.imshow(plane, cmap="gray", vmin=window[0], vmax=window[1], aspect=height / width)
    if axis > 0:
        panel.invert_yaxis()  # the head is up
    for label in scene.labels:
        _contour(panel, np.take(prediction, index, axis) == label.value, _rgb(label), "-", 2.0)
    if scene.truth is not None and not np.array_equal(scene.truth, prediction):
        for label in scene.labels:
            _contour(panel, np.take(scene.truth, index, axis) == label.value, "white", "--", 0.9)
    panel.set_axis_off()


def _contour(panel: Axes, mask: np.ndarray, color: Rgb | str, style: str, width: float) -> None:
    """The outline of a mask, closed also where it meets the border of the picture."""
    if mask.any():
        padded = np.pad(mask.astype(np.float32), 1)
        rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
        panel.contour(columns, rows, padded, levels=[0.5], colors=[color], linestyles=style, linewidths=width)


def _window(scene: Scene) -> tuple[float, float]:
    """Grey levels that show the labelled tissue with contrast and its surroundings still distinct."""
    tissue = scene.grey[scene.reference > 0] if scene.reference.any() else scene.grey
    low, high = (float(value) for value in np.percentile(tissue, [1, 99]))
    spread = max(high - low, 1e-6)
    return max(low - 1.2 * spread, float(scene.grey.min())), high + 0.5 * spread


def _rgb(label: Label) -> Rgb:
    red, green, blue = label.color
    return red / 255, green / 255, blue / 255
