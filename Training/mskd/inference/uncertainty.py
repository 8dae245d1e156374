"""How sure a network is: of each voxel (entropy) and of each label (confidence)."""

from __future__ import annotations

from functools import cache
from math import log

import torch
from torch import Tensor

CERTAIN_PERCENT = 0.5
"""Entropy that rounds to 0 percent."""


def entropy_percent(logits: Tensor, best: Tensor) -> Tensor:
    """Entropy of the softmax of ``[M, K]`` logits in percent of the largest possible, log K; uint8 ``[M]``.

    With d the logits less their largest, and s the sum of exp(d), it is log(s) - sum(d exp(d)) / s. torch's own softmax
    over so few classes takes several times as long.

    Args:
        best: The largest logit of each row, ``[M]``.
    """
    below = logits - best[:, None]
    parts = below.exp()
    total = parts.sum(dim=1)
    nats = total.log() - parts.mul_(below).sum(dim=1) / total
    return (nats * (100 / log(max(2, logits.shape[1])))).round_().to(torch.uint8)


def is_certain(rows: Tensor, best: Tensor) -> Tensor:
    """Whether the winner of each row is so probable that the entropy is 0 percent, bool ``[M]``.

    The logarithm of a softmax is concave in the logits, so a linear interpolation between rows with the same certain
    winner is certain, too.

    Args:
        rows: Logits ``[M, K]``.
        best: The largest of each row, ``[M]``.
    """
    others = (rows - best[:, None]).exp_().sum(dim=1)  # 1 for the winner, and what the others have beside it
    return others <= 1 / certain_probability(rows.shape[1])


@cache
def certain_probability(classes: int) -> float:
    """A probability of the winner from which on the entropy is 0 percent, however the rest is shared out."""
    rest = 0.5
    limit = CERTAIN_PERCENT / 100 * log(max(2, classes))
    while -rest * log(rest) - (1 - rest) * log(1 - rest) + rest * log(max(1, classes - 1)) >= limit:
        rest *= 0.8
    return 1 - rest


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
