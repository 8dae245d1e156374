"""Logits distillation (Hinton, Vinyals, Dean 2015), voxel by voxel."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mskd.distillation.base import METHODS, Method, MethodSettings
from mskd.distillation.context import Context
from mskd.distillation.outputs import Outputs, Shapes


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 mean_p KL(softmax(z_T / T) || softmax(z_S / T)), the mean over batch and voxels.

    Args:
        student, teacher: Logits ``[B, K, n]``.
        temperature: T > 0.
    """
    log_student = torch.log_softmax(student / temperature, dim=1)
    log_teacher = torch.log_softmax(teacher / temperature, dim=1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(1)
    return temperature**2 * divergence.mean()


class KDSettings(MethodSettings):
    """``temperature``: T, softens both distributions."""

    temperature: Annotated[float, Field(gt=0.0, le=100.0)] = 4.0


@METHODS.register("kd")
class KD(Method):
    """Soft labels on the logits, labelled or not."""

    Settings = KDSettings
    ramped = False
    needs_features = False

    def __init__(self, settings: KDSettings, shapes: Shapes) -> None:
        super().__init__(settings, shapes)
        self.temperature = settings.temperature

    def forward(self, student: Outputs, teacher: Outputs, context: Context) -> Tensor:
        return kd_loss(student.logits.flatten(2), teacher.logits.flatten(2), self.temperature)
