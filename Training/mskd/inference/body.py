"""Where a CT is not air: the network need not see the rest."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from mskd.inference.grid import Slices
from mskd.spec import Normalization

MARGIN_MM = 10.0
"""Air that is kept around the body: training saw some, too."""


def air_level(normalization: Normalization) -> float | None:
    """The raw value up to which all voxels look alike to the network, or None where each counts."""
    return normalization.lower if normalization.name == "clip_zscore" else None


def normalized_air(normalization: Normalization) -> float | None:
    """What :func:`air_level` becomes by normalisation, rounded as the voxels are."""
    level = air_level(normalization)
    if level is None:
        return None
    return float(torch.tensor(level).sub(normalization.mean or 0.0).div(normalization.std or 1.0))


def body_box(array: NDArray, level: float, spacing: tuple[float, ...]) -> Slices | None:
    """The box of all voxels above ``level`` in any channel, and :data:`MARGIN_MM` around it.

    Args:
        array: Raw voxels ``[C, z, y, x]``; may be a view.
        level: See :func:`air_level`.
        spacing: mm, (z, y, x).

    Returns:
        None where there is no such voxel.
    """
    filled = [np.zeros(side, dtype=bool) for side in array.shape[1:]]
    for channel in array:
        for index, plane in enumerate(channel):
            above = plane > level
            rows = above.any(axis=1)
            filled[0][index] |= rows.any()
            filled[1] |= rows
            filled[2] |= above.any(axis=0)
    if not filled[0].any():
        return None
    z, y, x = (_grown(line, ceil(MARGIN_MM / step)) for line, step in zip(filled, spacing, strict=True))
    return z, y, x


def _grown(line: NDArray[np.bool_], margin: int) -> slice:
    inside = np.flatnonzero(line)
    return slice(max(0, int(inside[0]) - margin), min(len(line), int(inside[-1]) + 1 + margin))
