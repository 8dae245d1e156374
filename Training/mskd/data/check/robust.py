"""Outliers by median and median absolute deviation, which a few faulty cases cannot move."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Below this many values there is no saying what is usual.
FEWEST = 8
NORMAL = 1.4826  # makes the median absolute deviation of a normal distribution its standard deviation


def centre_and_spread(values: npt.ArrayLike, floor: float) -> tuple[Floats, Floats]:
    """Median and robust standard deviation over the first axis, NaN left out.

    Args:
        floor: The least spread: differences of this size are never remarkable, however alike the rest are.
    """
    array = np.asarray(values, np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN alone has the median NaN
        centre = np.nanmedian(array, axis=0)
        deviation = np.nanmedian(np.abs(array - centre), axis=0)
    return np.asarray(centre), np.maximum(NORMAL * deviation, floor)


def robust_z(values: npt.ArrayLike, floor: float) -> Floats:
    """Distance of each value from the median in robust standard deviations; 0 where there is nothing to compare.

    Args:
        values: ``[cases, ...]``; NaN where a case has no value.
        floor: See :func:`centre_and_spread`.
    """
    array = np.asarray(values, np.float64)
    if not len(array):
        return array
    centre, spread = centre_and_spread(array, floor)
    z = (array - centre) / spread
    enough = np.isfinite(array).sum(axis=0) >= FEWEST
    return np.where(np.isfinite(z) & enough, z, 0.0)
