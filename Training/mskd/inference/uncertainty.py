"""How sure a network is: of each voxel (entropy) and of each label (confidence)."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

CHUNK = 1 << 14
"""Voxels at a time on a processor: their numbers stay in its cache."""


def entropy_percent(logits: Tensor, best: Tensor, classes: int) -> Tensor:
    """Entropy of the softmax of ``[M, K]`` logits in percent of the largest possible; float32 ``[M]``.

    With d the logits less their largest, and s the sum of exp(d), it is log(s) - sum(d exp(d)) / s. torch's own softmax
    over so few classes takes several times as long.

    Args:
        best: The largest logit of each row, ``[M]``.
        classes: Those among which all are equally probable at 100 %, where ``logits`` are of some of them alone.
    """
    percent = torch.empty_like(best)
    scale = 100 / log(max(2, classes))
    chunk = CHUNK if best.device.type == "cpu" else max(1, len(best))
    for rows, top, found in zip(logits.split(chunk), best.split(chunk), percent.split(chunk), strict=True):
        below = rows - top[:, None]
        parts = below.exp()
        total = parts.sum(dim=1)
        torch.sub(total.log(), parts.mul_(below).sum(dim=1).div_(total), out=found).mul_(scale)
    return percent


class Confidence:
    """Mean probability of each label over the prepared voxels where it wins, gathered slab by slab.

    Args:
        classes: Background included.
    """

    def __init__(self, classes: int) -> None:
        self._sums = torch.zeros(classes, dtype=torch.float64)
        self._counts = torch.zeros(classes, dtype=torch.float64)

    def add(self, rows: Tensor, best: Tensor, winner: Tensor) -> None:
        """Count the rows where a label wins.

        Args:
            rows: Logits ``[M, K]``.
            best: The largest of each row, ``[M]``.
            winner: Its class, uint8 ``[M]``.
        """
        inside = winner.nonzero()[:, 0]
        own = winner[inside].long()
        # Of the winner, exp(0) is left over the sum.
        probability = 1 / (rows[inside] - best[inside, None]).exp_().sum(dim=1, dtype=torch.float64)
        for total, values in ((self._sums, probability), (self._counts, torch.ones_like(probability))):
            total += torch.zeros_like(total, device=rows.device).index_add_(0, own, values).cpu()

    def mean(self, label: int) -> float | None:
        """0 to 1; None where the label wins nowhere."""
        return float(self._sums[label] / self._counts[label]) if self._counts[label] else None
