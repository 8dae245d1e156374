"""Measures of one channel: range, emptiness, and two ways to recognise it again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Voxels that stand for all of them in percentiles.
SAMPLES = 100_000
# Side of the small copy by which a case is recognised, and the sigma of what is taken off as mere shape, in its voxels.
SIDE, SMOOTH = 16, 1.5
SLAB = 4  # voxels of a slab along its axis, at the least, that enter its mean where there are so many


@dataclass(frozen=True)
class ChannelMeasure:
    """Intensities of one channel, in the file's units.

    Args:
        low, median, high: 0.5th, 50th and 99.5th percentile of a regular sample.
        commonest: Share of the sample that has its most frequent value, 0 to 1.
        digest: Equal for equal voxels, of whatever numeric type.
    """

    minimum: float
    low: float
    median: float
    high: float
    maximum: float
    commonest: float
    digest: str


def sample(array: np.ndarray, count: int = SAMPLES) -> np.ndarray:
    """About ``count`` voxels at regular steps through the array."""
    return array.reshape(-1)[:: max(1, array.size // count)]


def measure_channel(channel: np.ndarray) -> ChannelMeasure:
    """Measure a channel ``[z, y, x]`` of finite voxels."""
    voxels = sample(channel)
    low, median, high = (float(value) for value in np.percentile(voxels, [0.5, 50, 99.5]))
    _, counts = np.unique(voxels, return_counts=True)
    return ChannelMeasure(
        minimum=float(channel.min()),
        low=low,
        median=median,
        high=high,
        maximum=float(channel.max()),
        commonest=float(counts.max() / voxels.size),
        digest=_digest(channel),
    )


def signature(channels: Sequence[np.ndarray]) -> np.ndarray:
    """A float32 vector of length 1 whose product with another case's is 1 for the same image, less for another's.

    The channels' band-passed small copies: averaging takes the noise away, and what varies slowly across the body,
    which all patients share, is subtracted.
    """
    from scipy import ndimage

    parts = []
    for channel in channels:
        small = _shrunk(channel)
        small = np.clip(small, *np.percentile(small, [1, 99]))
        detail = (small - ndimage.gaussian_filter(small, SMOOTH)).ravel()
        length = float(np.linalg.norm(detail))
        parts.append(detail / length if length > 0 else detail)
    return (np.concatenate(parts) / np.sqrt(len(parts))).astype(np.float32)


def _shrunk(array: np.ndarray) -> np.ndarray:
    """Means of ``SIDE`` slabs along each axis, of a large image's every n-th voxel; a short axis repeats its voxels."""
    array = array[tuple(slice(None, None, max(1, side // (SIDE * SLAB))) for side in array.shape)]
    for axis, side in enumerate(array.shape):
        starts = np.arange(SIDE) * side // SIDE
        if side < SIDE:
            array = np.take(array, starts, axis)
            continue
        sizes = np.diff(np.append(starts, side)).reshape([-1 if other == axis else 1 for other in range(3)])
        array = np.add.reduceat(array, starts, axis, dtype=np.float64) / sizes
    return array.astype(np.float64)


def _digest(channel: np.ndarray) -> str:
    digest = hashlib.blake2b(str(channel.shape).encode(), digest_size=16)
    for plane in channel:
        digest.update(np.ascontiguousarray(plane, np.float32).data)
    return digest.hexdigest()
