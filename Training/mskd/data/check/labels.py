"""Measures of each class of one label map, and of the intensities that lie under it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mskd.data.check.voxels import sample
from mskd.image import Geometry

# Voxels that stand for the image, or for all of its labels, in ranks of intensity.
RANKED, REFERENCE = 1_000_000, 20_000
FEWEST_RANKED = 20
# A component of less than this share of its class is an island.
ISLAND = 0.05


@dataclass(frozen=True)
class ClassMeasure:
    """One class in one case.

    Args:
        centroid: (x, y, z) LPS mm.
        islands: Components (26-connected) of less than 5 % of the class.
        stray: mm from the box around its other components to the farthest island; 0 without islands, or inside it.
        at_edge: Whether it reaches the first or last voxel of an axis of more than one.
        rank: Mean over its voxels of the share of the image that is darker, 0 to 1; NaN for a tiny class.
        rank_spread: Standard deviation of the same.
    """

    voxels: int
    volume_ml: float
    centroid: tuple[float, float, float]
    components: int
    islands: int
    stray: float
    at_edge: bool
    rank: float
    rank_spread: float


def measure_classes(image: np.ndarray, labels: np.ndarray, geometry: Geometry) -> dict[int, ClassMeasure]:
    """Measure every value above 0 that occurs.

    Args:
        image: ``[z, y, x]``.
        labels: uint8 ``[z, y, x]`` on the same grid.
        geometry: Of both.
    """
    from scipy import ndimage

    ranks = _ranks(image, labels)
    found = {}
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == value
        start = np.array([side.start for side in box])
        voxels = np.argwhere(mask)
        centroid = voxels.mean(axis=0) + start
        sizes, islands, stray = _islands(mask, geometry.spacing)
        found[value] = ClassMeasure(
            voxels=len(voxels),
            volume_ml=len(voxels) * geometry.voxel_volume / 1000,
            centroid=geometry.point((float(centroid[0]), float(centroid[1]), float(centroid[2]))),
            components=sizes,
            islands=islands,
            stray=stray,
            at_edge=_at_edge(box, labels.shape),
            rank=ranks[value][0],
            rank_spread=ranks[value][1],
        )
    return found


def label_digest(labels: np.ndarray) -> str:
    """Equal for equal label maps."""
    return hashlib.blake2b(str(labels.shape).encode() + labels.tobytes(), digest_size=16).hexdigest()


def _at_edge(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(side > 1 and (part.start == 0 or part.stop == side) for part, side in zip(box, shape, strict=True))


def _islands(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[int, int, float]:
    """Number of components, number of islands, and how far the farthest island lies from the rest."""
    from scipy import ndimage

    components, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 1:
        return 1, 0, 0.0
    sizes = np.bincount(components.ravel())[1:]
    small = sizes < ISLAND * sizes.sum()
    if not small.any() or small.all():
        return count, 0, 0.0
    boxes = [np.array([[side.start, side.stop - 1] for side in box]) for box in ndimage.find_objects(components)]
    main = [box for box, island in zip(boxes, small, strict=True) if not island]
    low, high = np.min(main, axis=0)[:, 0], np.max(main, axis=0)[:, 1]
    gaps = [
        np.linalg.norm(np.maximum(0, np.maximum(low - box[:, 1], box[:, 0] - high)) * spacing)
        for box, island in zip(boxes, small, strict=True)
        if island
    ]
    return count, int(small.sum()), float(max(gaps))


def _ranks(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean and spread of the intensity ranks under each value, ``[256, 2]``; NaN where there are too few voxels.

    A rank, unlike an intensity, does not depend on the scanner's units.
    """
    reference = np.sort(sample(image, REFERENCE))
    where = np.flatnonzero(labels)
    where = where[:: max(1, len(where) // RANKED)]
    values = image.reshape(-1)[where]
    places = np.searchsorted(reference, values, "left") + np.searchsorted(reference, values, "right")
    ranks = places / (2 * len(reference))
    owners = labels.reshape(-1)[where]
    counts = np.bincount(owners, minlength=256)
    usable = np.where(counts >= FEWEST_RANKED, counts, np.nan)
    mean = np.bincount(owners, ranks, 256) / usable
    square = np.bincount(owners, ranks**2, 256) / usable
    return np.stack([mean, np.sqrt(np.maximum(square - mean**2, 0))], axis=1)
