"""A picture of truth against prediction: contours on the slice of each axis that shows most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import linear_sum_assignment

from mskd.image import Geometry, Image, LabelMap
from mskd.spec import IGNORE, Label

AXES = ("axial", "coronal", "sagittal")
PANEL_INCHES = 3.4
Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """What is drawn, with arrays turned so that z, y, x grow towards head, back and left, as far as the grid allows."""

    grey: np.ndarray
    truth: np.ndarray | None
    predictions: Mapping[str, np.ndarray]
    labels: Sequence[Label]
    spacing: tuple[float, ...]

    @property
    def reference(self) -> np.ndarray:
        """What decides which slices are shown: the truth, or else the first prediction that found anything."""
        found = [*([] if self.truth is None else [self.truth]), *self.predictions.values()]
        return next((array for array in found if array.any()), found[0])


def save_overlay(
    path: Path,
    image: Image,
    truth: LabelMap | None,
    predictions: Mapping[str, LabelMap],
    labels: Sequence[Label],
    *,
    margin: float | None = None,
) -> Path:
    """Write a PNG with one row a prediction and one column an axis.

    Args:
        image: Its first channel is shown.
        truth: Drawn dashed and white, where there is one; what it ignores is not drawn.
        predictions: Row title -> labels on the image's grid, drawn solid in the labels' colours.
        labels: Names and colours of the legend.
        margin: Show only what the labels occupy and this many mm around it; None shows the whole image.

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
    figure = _figure(scene if margin is None else _cropped(scene, margin))
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
    return path


def best_slice(labels: np.ndarray, axis: int) -> int:
    """The slice across ``axis`` that shows most of all labels, each measured against its own largest section."""
    others = tuple(other for other in range(3) if other != axis)
    shown = np.zeros(labels.shape[axis])
    for value in np.unique(labels[labels > 0]):
        area = (labels == value).sum(axis=others)
        shown += area / area.max()
    return int(np.argmax(shown))


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
    occupied = np.argwhere(scene.reference)
    if not len(occupied):
        return scene
    extra = [round(margin / step) for step in scene.spacing]
    box = tuple(
        slice(max(0, int(low) - more), int(high) + 1 + more)
        for low, high, more in zip(occupied.min(axis=0), occupied.max(axis=0), extra, strict=True)
    )
    return Scene(
        grey=scene.grey[box],
        truth=None if scene.truth is None else scene.truth[box],
        predictions={title: array[box] for title, array in scene.predictions.items()},
        labels=scene.labels,
        spacing=scene.spacing,
    )


def _figure(scene: Scene) -> Figure:
    rows = len(scene.predictions)
    figure = Figure(figsize=(PANEL_INCHES * 3, PANEL_INCHES * rows + 0.7), dpi=110, layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False)
    window = _window(scene)
    for panels, (title, prediction) in zip(grid, scene.predictions.items(), strict=True):
        for axis, panel in enumerate(panels):
            _draw(panel, scene, prediction, axis, window)
            panel.set_title(f"{title}: {AXES[axis]}" if title else AXES[axis], fontsize=10)
    handles = [Line2D([], [], color=_rgb(label), lw=3, label=label.name) for label in scene.labels]
    if scene.truth is not None:
        handles.append(Line2D([], [], color="0.45", lw=1.5, ls="--", label="truth (dashed, white)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=10)
    return figure


def _draw(panel: Axes, scene: Scene, prediction: np.ndarray, axis: int, window: tuple[float, float]) -> None:
    index = best_slice(scene.reference, axis)
    height, width = (step for other, step in enumerate(scene.spacing) if other != axis)
    plane = np.take(scene.grey, index, axis)
    panel.imshow(plane, cmap="gray", vmin=window[0], vmax=window[1], aspect=height / width)
    if axis > 0:
        panel.invert_yaxis()  # the head is up
    for label in scene.labels:
        _contour(panel, np.take(prediction, index, axis) == label.value, _rgb(label), "-", 2.0)
    if scene.truth is not None:
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
    return low - 1.2 * spread, high + 0.5 * spread


def _rgb(label: Label) -> Rgb:
    red, green, blue = label.color
    return red / 255, green / 255, blue / 255
