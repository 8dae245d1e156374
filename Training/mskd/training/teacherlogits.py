"""A teacher's logits of whole cases, for students that learn from logits alone: computed once, not at every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mskd.data.prepared import PreparedCase
from mskd.errors import Cancelled, InputError
from mskd.events import CancelCheck, never
from mskd.training.whole import whole_logits

FORMAT = 1
"""Raised whenever the same teacher would give other logits."""


@dataclass(frozen=True)
class TeacherLogits:
    """Case -> what the teacher says of it, float16 ``[K, z, y, x]``: what a store computes once and keeps.

    A whole case is seen in one piece or through large windows, so the logits at the border of a training patch know
    what lies beyond it, which the online teacher, who sees the patch alone, does not.

    Args:
        network: On ``device``, in eval mode.
        fingerprint: Of the teacher.
        patch: Voxels along (y, x), or (z, y, x), that the student is trained on.
    """

    network: nn.Module
    fingerprint: str
    patch: tuple[int, ...]
    device: torch.device
    cancelled: CancelCheck = never

    @property
    def key(self) -> str:
        """All that decides the logits, besides the case."""
        return f"{FORMAT} {self.fingerprint} {self.patch}"

    def __call__(self, case: PreparedCase) -> np.ndarray:
        """The logits of one case.

        Raises:
            InputError: the teacher's logits are not finite. Cancelled: asked to stop.
        """
        try:
            logits = whole_logits(self.network, case, self.patch, self.device, self.cancelled)
        except Cancelled as stopped:
            raise Cancelled(
                "Cancelled while the teacher was asked; what it said of earlier cases is kept."
            ) from stopped
        if not bool(logits.isfinite().all()):
            raise InputError(
                f"Case {case.id}: the teacher's logits are not finite; look at this image, or take another teacher."
            )
        largest = torch.finfo(torch.float16).max
        found: np.ndarray = logits.clamp(-largest, largest).half().cpu().numpy()
        return found
