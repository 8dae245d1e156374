"""The moving average of a network's weights, which is what is validated and shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """The exponential moving average of weights and statistics; with ``decay`` 0 it is the network itself.

    The decay grows with the steps, ``min(decay, (1 + t) / (10 + t))``, so that a short run forgets its random start.
    Which tensors belong together is found out once: to do so at every step, as ``AveragedModel`` does, takes as long as
    the backward pass of a light student on a GPU.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self._decay = decay
        self._paired = 0  # with whom; an attribute that is a module would become a part of this one
        self._floats: tuple[list[Tensor], list[Tensor]] = [], []
        self._counts: tuple[list[Tensor], list[Tensor]] = [], []

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take one more step of ``model`` in."""
        if id(model) != self._paired:
            self._pair(model)
        steps = float(self.n_averaged)
        decay = min(self._decay, (1 + steps) / (10 + steps)) if steps else 0.0
        torch._foreach_lerp_(*self._floats, 1 - decay)
        if self._counts[0]:
            torch._foreach_copy_(*self._counts)
        self.n_averaged += 1

    def _pair(self, model: nn.Module) -> None:
        own, theirs = ([*network.parameters(), *network.buffers()] for network in (self.module, model))
        self._counts = _chosen(own, theirs, floating=False)
        self._floats = _chosen(own, theirs, floating=True)
        self._paired = id(model)


def _chosen(own: list[Tensor], theirs: list[Tensor], *, floating: bool) -> tuple[list[Tensor], list[Tensor]]:
    pairs = [(a.detach(), b.detach()) for a, b in zip(own, theirs, strict=True) if a.is_floating_point() is floating]
    return [a for a, _ in pairs], [b for _, b in pairs]
