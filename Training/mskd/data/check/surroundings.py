"""What lies around the labels: the box they occupy, and whether the image is blank there."""

from __future__ import annotations

import numpy as np

from mskd.data.check.voxels import sample

# Voxels around a label that are looked at, and the share of them that makes a slice blank.
RING, BLANK = 2, 0.8


def bare_share(image: np.ndarray, labels: np.ndarray) -> float:
    """Share of the labelled voxels, 0 to 1, in z slices whose image is blank around them, as if masked by the labels.

    Blank is the image's most frequent value, such as that of air.
    """
    box = occupied_box(labels)
    if box is None:
        return 0.0
    values, counts = np.unique(sample(image), return_counts=True)
    bare = total = 0
    for image_plane, plane in zip(image[box], labels[box], strict=True):
        mask = plane > 0
        ring = _grown(mask) & ~mask
        labelled, around = int(mask.sum()), int(ring.sum())
        blank = int((image_plane[ring] == values[counts.argmax()]).sum())
        total += labelled
        bare += labelled if blank > BLANK * around else 0
    return bare / total


def occupied_box(labels: np.ndarray, margin: tuple[int, int, int] = (0, RING, RING)) -> tuple[slice, ...] | None:
    """The box (z, y, x) that all labels occupy, and a margin in voxels; None where there are none."""
    box = []
    for axis, around in enumerate(margin):
        occupied = np.flatnonzero(labels.any(axis=tuple(other for other in range(3) if other != axis)))
        if not occupied.size:
            return None
        box.append(slice(max(0, int(occupied[0]) - around), int(occupied[-1]) + 1 + around))
    return tuple(box)


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask ``[y, x]`` and what lies within ``RING`` steps of it."""
    for _ in range(RING):
        tall = mask.copy()
        tall[1:] |= mask[:-1]
        tall[:-1] |= mask[1:]
        mask = tall.copy()
        mask[:, 1:] |= tall[:, :-1]
        mask[:, :-1] |= tall[:, 1:]
    return mask
