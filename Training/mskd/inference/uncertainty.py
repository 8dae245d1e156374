"""How sure a network is: of each voxel (entropy) and of each label (confidence)."""

from __future__ import annotations

from math import log, prod

import torch
from torch import Tensor

CHUNK = 1 << 14
"""Voxels at a time on a processor: their numbers stay in its cache."""


def entropy_percent(below: Tensor, classes: int) -> Tensor:
    """Entropy of the softmax of logits in percent of the largest possible; float32 ``[..., M]``.

    With d the logits less their largest, and s the sum of exp(d), it is log(s) - sum(d exp(d)) / s. torch's own softmax
    over so few classes takes several times as long.

    Args:
        below: Logits less the largest of each voxel, ``[..., K, M]``.
        classes: Those among which all are equally probable at 100 %, where ``below`` has some of them alone.
    """
    scale = 100 / log(max(2, classes))
    chunk = max(1, CHUNK // prod(below.shape[:-2])) if below.device.type == "cpu" else below.shape[-1]
    found = []
    for part in below.split(chunk, dim=-1):
        shares = part.exp()
        total = shares.sum(dim=-2)
        found.append(total.log().sub_(shares.mul_(part).sum(dim=-2).div_(total)).mul_(scale))
    return torch.cat(found, dim=-1)


class Confidence:
    """Mean probability of each label over the prepared voxels where it wins, gathered slab by slab.

    Args:
        classes: Background included.
    """

    def __init__(self, classes: int) -> None:
        self._sums = torch.zeros(classes, dtype=torch.float64)
        self._counts = torch.zeros(classes, dtype=torch.float64)

    def add(self, probability: Tensor, winner: Tensor) -> None:
        """Count some voxels: the class that wins in each, uint8, and its probability, float32, of the same shape."""
        winner = winner.flatten()
        self._sums += winner.bincount(probability.flatten().double(), len(self._sums)).cpu()
        self._counts += winner.bincount(minlength=len(self._counts)).cpu()

    def mean(self, label: int) -> float | None:
        """0 to 1; None where the label wins nowhere."""
        return float(self._sums[label] / self._counts[label]) if self._counts[label] else None
