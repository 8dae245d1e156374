"""Random numbers of the controls."""

from __future__ import annotations

import torch
from torch import Tensor

from mskd.ranks import rank, world


def uniform_rows(like: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) of the shape of ``like`` ``[B, n]``, one row an item of the batch.

    Ranks that are seeded alike draw together what one process draws for the joined batch: each draws the rows of all,
    and keeps its own.
    """
    items, width = like.shape
    return torch.rand(world() * items, width, device=like.device)[rank() * items :][:items]
