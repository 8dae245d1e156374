"""Which organ is taken for which: a confusion matrix of voxels, pooled over cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BACKGROUND = "background"
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mistake:
    """``share`` of the voxels of ``truth`` (``voxels`` of them) were called ``found``."""

    truth: str
    found: str
    share: float
    voxels: int


@dataclass(frozen=True)
class Confusion:
    """Voxels by true class (rows) and predicted class (columns), background first.

    Args:
        counts: int64 ``[K, K]``.
        names: K class names.
    """

    counts: Counts
    names: tuple[str, ...]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Each row as shares of its class; a class without voxels has zeros."""
        total = self.counts.sum(axis=1, keepdims=True)
        return self.counts / np.maximum(total, 1)

    @property
    def organ_to_organ(self) -> float:
        """Share of the organs' voxels that were given to another organ; NaN where no organ has a voxel."""
        organs = self.counts[1:, 1:]
        return self._of_organs(int(organs.sum() - np.trace(organs)))

    @property
    def missed(self) -> float:
        """Share of the organs' voxels that were left to the background; NaN where no organ has a voxel."""
        return self._of_organs(int(self.counts[1:, 0].sum()))

    def mistakes(self, most: int) -> list[Mistake]:
        """The largest confusions between two organs, by their share of the true organ; background left out."""
        shares = self.shares
        found = [
            Mistake(self.names[row], self.names[column], float(shares[row, column]), int(self.counts[row, column]))
            for row, column in np.argwhere(self.counts > 0)
            if row and column and row != column
        ]
        return sorted(found, key=lambda entry: -entry.share)[:most]

    def _of_organs(self, voxels: int) -> float:
        total = int(self.counts[1:].sum())
        return voxels / total if total else float("nan")


def count_voxels(prediction: np.ndarray, truth: np.ndarray, classes: int) -> Counts:
    """Voxels of one case by true and predicted class.

    Args:
        prediction: Label values below ``classes``, any shape.
        truth: The same shape; voxels with a value of ``classes`` or more (marked to be ignored) do not count.

    Returns:
        int64 ``[classes, classes]``, rows the truth.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} must have the same shape")
    kept = truth < classes
    pairs = truth[kept].astype(np.int64) * classes + prediction[kept]
    counts: Counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.int64)
    return counts


def pooled(counts: Sequence[Counts], names: Sequence[str]) -> Confusion:
    """The confusion over all cases; ``names`` are those of the organs, in order of value."""
    return Confusion(np.sum(np.stack(counts), axis=0), (BACKGROUND, *names))
