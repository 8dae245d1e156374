"""A small picture of one case: the slice that shows most, in its true proportions, with outlines of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mskd.data.check.surroundings import occupied_box
from mskd.data.check.voxels import sample
from mskd.spec import Label

# Pixels of the longer side.
TILE = 180
# Slices that are this much thicker than the pixels of any other plane are the ones to look at.
THICK = 3.0
# Grey levels: the labelled tissue's range, and this much of it below and above, but nothing darker than the image.
BELOW, ABOVE = 1.2, 0.5
# Shown around the labels: this much of their size, and mm at the least.
AROUND, AROUND_MM = 0.35, 20.0


def draw_tile(
    image: np.ndarray, labels: np.ndarray | None, names: Sequence[Label], spacing: Sequence[float]
) -> np.ndarray:
    """Draw one case.

    Args:
        image: ``[z, y, x]``, axes growing towards head, back and left.
        labels: uint8 on the same grid, or None.
        names: Their colours; a value without a name is drawn in white.
        spacing: (z, y, x) mm.

    Returns:
        uint8 ``[height, width, 3]``, the longer side ``TILE`` pixels.
    """
    axis = int(np.argmax(spacing)) if max(spacing) > THICK * min(spacing) else 0
    index = image.shape[axis] // 2 if labels is None else best_slice(labels, axis)
    low, high = _window(image, labels)
    box = tuple(slice(None) for _ in spacing) if labels is None else _surroundings(labels, spacing)
    box = tuple(part for other, part in enumerate(box) if other != axis)
    plane = np.take(image, index, axis)[box].astype(np.float32)
    shown = None if labels is None else np.take(labels, index, axis)[box]
    height, width = (step for other, step in enumerate(spacing) if other != axis)
    rows, columns = _positions(plane.shape, height, width)
    if axis > 0:
        rows = rows[::-1]  # the head is up
    grey = np.clip((_resample(plane, rows, columns) - low) / (high - low), 0, 1)
    tile = np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)
    if shown is not None:
        colors = {label.value: label.color for label in names}
        for value in np.unique(shown[shown > 0]):
            mask = _resample((shown == value).astype(np.float32), rows, columns) >= 0.5
            tile[_outline(mask)] = colors.get(int(value), (255, 255, 255))
    return tile


def best_slice(labels: np.ndarray, axis: int) -> int:
    """The slice across ``axis`` that shows most of all labels, each measured against its own largest section."""
    slices = np.moveaxis(labels, axis, 0)
    areas = np.stack([np.bincount(plane.ravel(), minlength=256)[1:] for plane in slices])
    if not areas.any():
        return len(slices) // 2
    return int((areas / np.maximum(areas.max(axis=0), 1)).sum(axis=1).argmax())


def _surroundings(labels: np.ndarray, spacing: Sequence[float]) -> tuple[slice, ...]:
    """The box that all labels of the case occupy, and something around it."""
    box = occupied_box(labels, margin=(0, 0, 0))
    if box is None:
        return tuple(slice(None) for _ in spacing)
    around = [
        round(max(AROUND * (part.stop - part.start), AROUND_MM / step)) for part, step in zip(box, spacing, strict=True)
    ]
    return tuple(slice(max(0, part.start - more), part.stop + more) for part, more in zip(box, around, strict=True))


def _positions(shape: tuple[int, ...], height: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Continuous row and column of each pixel's centre."""
    scale = TILE / max(shape[0] * height, shape[1] * width)
    rows, columns = (max(1, round(side * step * scale)) for side, step in zip(shape, (height, width), strict=True))
    return (
        (np.arange(rows) + 0.5) * shape[0] / rows - 0.5,
        (np.arange(columns) + 0.5) * shape[1] / columns - 0.5,
    )


def _resample(plane: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Linear interpolation, one axis at a time."""
    for axis, wanted in ((0, rows), (1, columns)):
        side = plane.shape[axis]
        place = np.clip(wanted, 0, side - 1)
        first = np.minimum(place.astype(int), max(side - 2, 0))
        weight = (place - first).reshape([-1 if other == axis else 1 for other in range(2)]).astype(np.float32)
        after = np.take(plane, np.minimum(first + 1, side - 1), axis)
        plane = np.take(plane, first, axis) * (1 - weight) + after * weight
    return plane


def _outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that touch a pixel outside of it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _window(image: np.ndarray, labels: np.ndarray | None) -> tuple[float, float]:
    """Grey levels that show the labelled tissue with contrast and its surroundings still distinct."""
    tissue = None if labels is None else image[labels > 0]
    if tissue is None or not tissue.size:
        low, high = (float(value) for value in np.percentile(sample(image), [0.5, 99.5]))
        return low, max(high, low + 1e-6)
    low, high = (float(value) for value in np.percentile(tissue, [2, 98]))
    spread = max(high - low, 1e-6)
    darkest = float(np.percentile(sample(image), 2))
    return max(low - BELOW * spread, min(darkest, low)), high + ABOVE * spread
