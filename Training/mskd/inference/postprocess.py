"""What a package asks for after the network: the largest connected piece of a label, and no holes in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]


def keep_largest(labels: NDArray[np.uint8], values: Iterable[int]) -> None:
    """Set to 0, in place, every face-connected piece of each label but its largest.

    Args:
        labels: ``[z, y, x]``.
        values: Labels to clean; one that is absent stays absent.
    """
    for value, box in _boxes(labels, values):
        found = sitk.ConnectedComponent(sitk.GetImageFromArray((labels[box] == value).view(np.uint8)))
        pieces = sitk.GetArrayViewFromImage(found)  # shares the memory of ``found``
        count = int(pieces.max())
        if count > 1:
            # Slice by slice: bincount makes 64-bit copies of what it counts.
            sizes = np.sum([np.bincount(plane.ravel(), minlength=count + 1) for plane in pieces], axis=0)
            labels[box][(pieces != 0) & (pieces != 1 + np.argmax(sizes[1:]))] = 0


def fill_holes(labels: NDArray[np.uint8], values: Iterable[int]) -> None:
    """Give to each label, in place, the background that it encloses on all sides.

    Background reaches on through faces, and what reaches the border of the image is no hole. An image of one slice is
    looked at in its plane. Other labels inside a label stay.

    Args:
        labels: ``[z, y, x]``.
        values: Labels to fill.
    """
    flat = tuple(axis for axis, side in enumerate(labels.shape) if side == 1)
    if len(flat) > 1:  # nothing can be enclosed in a line
        return
    for value, box in _boxes(labels, values):
        part = labels[box].squeeze(flat)
        mask = sitk.GetImageFromArray((part == value).view(np.uint8))
        filled = sitk.BinaryFillhole(mask, fullyConnected=False, foregroundValue=1)
        part[(sitk.GetArrayViewFromImage(filled) != 0) & (part == 0)] = value


def _boxes(labels: NDArray[np.uint8], values: Iterable[int]) -> Iterator[tuple[int, Box]]:
    """The box of each label that is present, when its turn comes."""
    wanted = list(values)
    if not wanted:
        return
    present = np.stack([np.bincount(plane.ravel(), minlength=256) > 0 for plane in labels])
    for value in wanted:
        slices = np.flatnonzero(present[:, value])
        if not slices.size:
            continue
        z = slice(int(slices[0]), int(slices[-1]) + 1)
        shadow = np.zeros(labels.shape[1:], dtype=bool)
        for plane in labels[z]:
            shadow |= plane == value
        y, x = (np.flatnonzero(shadow.any(axis=axis)) for axis in (1, 0))
        if y.size:  # an earlier turn may have taken the last voxel
            yield value, (z, slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1))
