"""What is minimised: the segmentation loss, and with a teacher the terms of the distillation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor, nn

from mskd.data.patches import Batch
from mskd.distillation.criterion import Distillation
from mskd.networks import SegmentationNetwork

Terms = dict[str, Tensor]


def segmentation_loss() -> Callable[[Tensor, Tensor], Tensor]:
    """Dice + cross-entropy as nnU-Net has it: background left out of the Dice, which is taken over the whole batch.

    From logits ``[N, K, *spatial]`` and labels ``[N, *spatial]`` to a scalar in float32.
    """
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    return lambda logits, labels: loss(logits.float(), labels[:, None])


class Task:
    """A network trained on its labels."""

    def __init__(self, network: SegmentationNetwork) -> None:
        self.network = network
        self.criterion: nn.Module = nn.Module()
        self._loss = segmentation_loss()

    def terms(self, batch: Batch, progress: float, autocast: torch.autocast) -> Terms:
        """Named loss terms of one batch; their sum is minimised. ``progress`` runs from 0 to 1 over the training."""
        with autocast:
            logits = self.network(batch.images)
        return self._segmentation(logits, batch.labels)

    def _segmentation(self, logits: Tensor, labels: Tensor | None) -> Terms:
        if labels is None:
            return {}
        return {"segmentation": self._loss(logits, labels)}


class DistillationTask(Task):
    """A student that learns from labels and a teacher; unlabelled batches leave the teacher alone to speak."""

    def __init__(self, network: SegmentationNetwork, distillation: Distillation) -> None:
        super().__init__(network)
        self.criterion = distillation
        self._distillation = distillation

    def terms(self, batch: Batch, progress: float, autocast: torch.autocast) -> Terms:
        with autocast:
            student = self._distillation.student_forward(batch.images)
            teacher = self._distillation.teacher_forward(batch.images)
        distilled = self._distillation(student, teacher, batch.labels, progress)
        return {**self._segmentation(student.logits, batch.labels), **distilled}
