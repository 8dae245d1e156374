"""How sure a network is: of each voxel (entropy) and of each label (confidence)."""

from __future__ import annotations

from functools import cache
from math import log

import torch
from torch import Tensor

CERTAIN_PERCENT = 0.5
"""Entropy that rounds to 0 percent."""

MOST_SAMPLES = 20_000
"""Voxels of a label whose probability is looked at: their mean differs from that of all by less than it is printed."""


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


def confidences(logits: Tensor, winner: Tensor) -> dict[int, float]:
    """Mean probability, 0 to 1, of each label over voxels where it wins; what wins nowhere is left out.

    Args:
        logits: ``[K, *spatial]``.
        winner: uint8 ``[*spatial]``: the label that wins. Of a large one, every so many voxels count.
    """
    flat = winner.reshape(-1)
    inside = flat.nonzero()[:, 0]
    values = flat[inside]
    found: dict[int, float] = {}
    for value in range(1, logits.shape[0]):
        own = inside[values == value]
        if len(own):
            own = own[:: -(-len(own) // MOST_SAMPLES)]
            places = torch.unravel_index(own, winner.shape)
            samples = logits[(slice(None), *places)].float()
            found[value] = float(samples.softmax(dim=0)[value].mean())
    return found
