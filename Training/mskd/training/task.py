"""What is minimised: the segmentation loss, deep supervision, and with a teacher the terms of the distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mskd.data.patches import Batch
from mskd.distillation.criterion import Distillation
from mskd.distillation.outputs import Outputs
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
        coarse: tuple[Tensor, ...] = ()
        with autocast:
            if self._supervision is None:
                student = self._student(batch.images)
            else:
                student, coarse = self._supervision.collect(self._student, batch.images)
        terms: Terms = {}
        if batch.labels is not None:
            terms |= segmentation_terms(student.logits, batch.labels, self._loss)
            if self._supervision is not None:
                terms |= self._supervision.terms(coarse, batch.labels)
        if self._distillation is not None:
            with autocast:
                teacher = self._distillation.teacher_forward(batch.images, batch.teacher_logits)
            taught = self._distillation(student, teacher, batch.labels, progress)
            segmentation = torch.stack(list(terms.values())).sum() if terms else None
            terms |= self._distillation.limited(taught, segmentation, student)
        return terms

    def told(self) -> dict[str, float]:
        """What else is worth a curve: the factor by which the terms under the teacher are held down."""
        limit = None if self._distillation is None else self._distillation.limit
        return {} if limit is None else {"distillation/factor": limit.factor}

    def _student(self, images: Tensor) -> Outputs:
        if self._distillation is None:
            return Outputs(self.network(images), ())
        return self._distillation.student_forward(images)
