"""Keeps the terms of the distillation from drowning what the labels say."""

from __future__ import annotations

from math import exp, isfinite, log
from typing import Any

import torch
from torch import Tensor, nn

from mskd.ranks import total

EVERY = 10
"""Batches from one look at the gradients to the next."""

SMOOTHING = 0.8
"""Weight of what was seen before in the average of the looks."""

LIFTS = (2.0**16, 2.0**8, 1.0)
"""What losses are multiplied by, so that their gradients do not vanish where features are float16; the next one where
they overflow. The ratio of two gradients stays the same."""


class Limit(nn.Module):
    """Scales all terms by one factor, so that on average they pull on the student at most ``most`` times as hard as
    segmentation.

    Weights that are right for a student that has learnt are tens of times too large for one that still sees background
    alone: then its segmentation loss has hardly a gradient, while every term has much to say. Held down until labels
    have shown it where the organs are, it learns as fast as alone.

    Args:
        most: Ratio of the norms of both gradients at the student's last decoder stage (at its logits, where no features
            are read), a geometric mean over the latest batches that were looked at.
    """

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most
        self.factor = 1.0
        self._batches = 0
        self._ratio: float | None = None

    def forward(self, segmentation: Tensor | None, terms: dict[str, Tensor], features: Tensor) -> dict[str, Tensor]:
        """The terms, scaled.

        Args:
            segmentation: What the labels say, a scalar; None where there are none, and the last factor holds.
            terms: Weighted terms by name, scalars.
            features: ``[N, C, *spatial]`` of the student, that both depend on.
        """
        if segmentation is not None:
            if self._batches % EVERY == 0:
                self._look(segmentation, torch.stack(list(terms.values())).sum(), features)
            self._batches += 1
        return {name: self.factor * term for name, term in terms.items()}

    def _look(self, segmentation: Tensor, taught: Tensor, features: Tensor) -> None:
        for lift in LIFTS:
            squares = [gradient_at(features, lift * loss).square().sum() for loss in (segmentation, taught)]
            ours, theirs = total(torch.stack(squares)).tolist()
            if isfinite(ours) and isfinite(theirs):
                break
        else:
            return  # a loss that is no number, which whoever takes the step sees too
        if not ours or not theirs:  # terms that have not begun to grow, or nothing to compare them with
            return
        ratio = log(theirs / ours) / 2
        self._ratio = ratio if self._ratio is None else SMOOTHING * self._ratio + (1 - SMOOTHING) * ratio
        self.factor = min(1.0, self.most * exp(-self._ratio))

    def get_extra_state(self) -> dict[str, Any]:
        return {"factor": self.factor, "batches": self._batches, "ratio": self._ratio}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.factor, self._batches, self._ratio = state["factor"], state["batches"], state["ratio"]


def gradient_at(features: Tensor, loss: Tensor) -> Tensor:
    """The gradient of a scalar as float32 of the shape of ``features``; zeros where it does not depend on them."""
    if not loss.requires_grad:
        return torch.zeros_like(features, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True, materialize_grads=True)
    return gradient.float()
