"""What is minimised: the segmentation loss, deep supervision, and with a teacher the terms of the distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mskd.data.patches import Batch
from mskd.distillation.criterion import Distillation
from mskd.networks import SegmentationNetwork
from mskd.training.losses import segmentation_terms
from mskd.training.settings import LossSettings
from mskd.training.supervision import DeepSupervision

Terms = dict[str, Tensor]


class Task(nn.Module):
    """A network and everything that judges it; called with a batch, it returns the named terms whose sum is minimised.

    What it learns beside the network (projections of the distillation, heads of the deep supervision) is in
    ``criterion`` and leaves no trace in the network.

    Args:
        supervision: Heads on the coarser stages, or None.
        distillation: The terms under a teacher, or None; unlabelled batches leave the teacher alone to speak.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        loss: LossSettings,
        *,
        supervision: DeepSupervision | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        parts = {"supervision": supervision, "distillation": distillation}
        self.criterion = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
        self._loss, self._supervision, self._distillation = loss, supervision, distillation

    def forward(self, batch: Batch, progress: float, autocast: torch.autocast) -> Terms:
        """Named loss terms of one batch, on its device. ``progress`` runs from 0 to 1 over the training."""
        student = self._distillation.student_forward if self._distillation else self.network
        coarse: tuple[Tensor, ...] = ()
        with autocast:
            if self._supervision is None:
                outputs = student(batch.images)
            else:
                outputs, coarse = self._supervision.collect(student, batch.images)
            teacher = None
            if self._distillation is not None:
                teacher = self._distillation.teacher_forward(batch.images, batch.teacher_logits)
        terms: Terms = {}
        if batch.labels is not None:
            logits = outputs if self._distillation is None else outputs.logits
            terms |= segmentation_terms(logits, batch.labels, self._loss)
            if self._supervision is not None:
                terms |= self._supervision.terms(coarse, batch.labels)
        if self._distillation is not None:
            terms |= self._distillation(outputs, teacher, batch.labels, progress)
        return terms
