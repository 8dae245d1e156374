"""Choosing the weights of the terms once, by what they do to the student's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mskd.distillation.criterion import Distillation
from mskd.distillation.limit import gradient_at
from mskd.errors import SettingsError

SegmentationLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Calibration:
    """Suggested ``weights`` by term, and the gradient ``ratios`` of the unweighted terms to the segmentation loss."""

    weights: dict[str, float]
    ratios: dict[str, float]


def calibrate(
    distillation: Distillation,
    segmentation_loss: SegmentationLoss,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    target: float = 0.5,
) -> Calibration:
    """Weights under which distillation pulls on the last decoder stage ``target`` times as hard as segmentation does.

    Each term gets the same share: its weight is inverse to |d term / d F| / |d L_seg / d F|, F the student's features
    of the first level, the norms added up over the batches. All weights are then scaled by one factor, so that the
    gradient of their sum has the ratio ``target``. Freeze what comes out: it belongs in the recipe.

    The student's statistics, its modes and the random stream are left as they were; the ramp counts as complete.

    Args:
        segmentation_loss: ``(logits, labels) -> scalar``.
        batches: (image ``[N, C, *spatial]``, labels ``[N, *spatial]``), a few of them, with foreground.
        target: Ratio of the norms, 0.2 to 0.5 is usual.

    Raises:
        SettingsError: no batch, or a term that does not reach the last decoder stage at all.
    """
    if target <= 0:
        raise SettingsError(f"target is {target}: a ratio of gradients must be above 0; 0.2 to 0.5 is usual.")
    gathered: list[dict[str, Tensor]] = []
    with _preserved(distillation.student_module):
        for image, labels in batches:
            gathered.append(_gradients(distillation, segmentation_loss, image, labels))
    if not gathered:
        raise SettingsError("There is no batch to calibrate on; give at least one.")
    reference = _norm([gradients[""] for gradients in gathered])
    names = [name for name in gathered[0] if name]
    ratios = {name: _norm([gradients[name] for gradients in gathered]) / reference for name in names}
    silent = [name for name, ratio in ratios.items() if not ratio > 0]
    if silent:
        raise SettingsError(
            f"The terms {silent} have no gradient at '{distillation.levels[0][0]}' on these batches; "
            "give batches with foreground, or leave the terms out."
        )
    together = [torch.stack([gradients[n] / ratios[n] for n in names]).sum(0) for gradients in gathered]
    scale = target * reference / _norm(together)
    weights = {name: scale / ratio for name, ratio in ratios.items()}
    return Calibration(weights, ratios)


def _gradients(
    distillation: Distillation, segmentation_loss: SegmentationLoss, image: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """Gradients at the last decoder stage by term; that of the segmentation loss under the empty name."""
    student = distillation.student_forward(image)
    teacher = distillation.teacher_forward(image)
    losses = {"": segmentation_loss(student.logits, labels), **distillation.terms(student, teacher, labels)}
    return {name: gradient_at(student.features[0], loss) for name, loss in losses.items()}


def _norm(gradients: list[Tensor]) -> float:
    return sum(float(gradient.double().square().sum()) for gradient in gradients) ** 0.5


@contextmanager
def _preserved(network: nn.Module) -> Iterator[None]:
    """Put the buffers (running statistics) and the random stream back as they were."""
    saved = {name: buffer.clone() for name, buffer in network.named_buffers()}
    devices = list({p.device for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in network.named_buffers():
                    buffer.copy_(saved[name])
