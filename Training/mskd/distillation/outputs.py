"""What one forward pass of a network gives to distillation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Logits ``[N, K, *spatial]`` and the tapped features ``[N, C, *grid]``, one a level, last decoder stage first."""

    logits: Tensor
    features: tuple[Tensor, ...]

    def detached(self) -> Outputs:
        """The same numbers, without a way back to the network."""
        return Outputs(self.logits.detach(), tuple(features.detach() for features in self.features))


@dataclass(frozen=True)
class Shapes:
    """What a method may know of the two networks when it is built.

    ``student`` and ``teacher`` hold the channels of the tapped features, one number per level.
    """

    dim: int
    classes: int
    student: tuple[int, ...]
    teacher: tuple[int, ...]


def full_precision(values: Tensor) -> Tensor:
    """``values`` in float32; float64 stays, for gradient checks."""
    return values if values.dtype == torch.float64 else values.float()
