"""What a network is told about its labels: an overlap term over the batch and a term per voxel.

The overlap is written here and not taken from MONAI, because its sums have to run over the voxels that count (no
ignored ones), over the classes that occur, and over all ranks; the tests hold it to MONAI's where both are defined.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses.focal_loss import FocalLoss
from torch import Tensor

from mskd.ranks import total, world
from mskd.training.settings import LossSettings

SMOOTH = 1e-5


def segmentation_terms(logits: Tensor, labels: Tensor, settings: LossSettings) -> dict[str, Tensor]:
    """The weighted terms by name, in full precision.

    Args:
        logits: ``[N, K, *spatial]``.
        labels: ``[N, *spatial]`` int64; voxels with a value below 0 are ignored.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    counted = labels >= 0
    wanted = labels.clamp_min(0)
    terms: dict[str, Tensor] = {}
    log_probabilities = F.log_softmax(logits, dim=1)
    surprise = F.nll_loss(log_probabilities, wanted, reduction="none")
    if settings.overlap_weight > 0:
        false = (0.5, 0.5) if settings.overlap == "dice" else (settings.alpha, settings.beta)
        terms[settings.overlap] = settings.overlap_weight * tversky(
            log_probabilities.exp(), (-surprise).exp(), wanted, counted, *false
        )
    if settings.voxel_weight > 0:
        if settings.voxel == "ce":
            per_voxel = surprise
        else:
            focal = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=settings.gamma, reduction="none")
            per_voxel = focal(logits, wanted[:, None]).sum(1)
        terms[settings.voxel] = settings.voxel_weight * _mean(per_voxel, counted)
    return terms


def segmentation_loss(logits: Tensor, labels: Tensor, settings: LossSettings) -> Tensor:
    """The sum of :func:`segmentation_terms`, a scalar."""
    return torch.stack(list(segmentation_terms(logits, labels, settings).values())).sum()


def tversky(
    probabilities: Tensor, of_truth: Tensor, labels: Tensor, counted: Tensor, alpha: float, beta: float
) -> Tensor:
    """1 - mean_k TP_k / (TP_k + alpha FP_k + beta FN_k), the sums over the voxels of the whole batch, on all ranks.

    The background has no share, and neither has a class that occurs nowhere in the batch: nothing overlaps with it, and
    the term per voxel already answers for the voxels wrongly given to it. A batch of background alone gives 0.

    Args:
        probabilities: ``[N, K, *spatial]``.
        of_truth: Those of the labels, ``[N, *spatial]``; to gather them here would cost a scattered backward pass.
        labels: ``[N, *spatial]`` int64 in 0..K-1.
        counted: ``[N, *spatial]``, false where a voxel is ignored.
    """
    classes = probabilities.shape[1]
    here = counted.to(probabilities.dtype)
    predicted = (probabilities * here[:, None]).flatten(2).sum((0, 2))
    hits = _by_class(of_truth * here, labels, classes)
    true = _by_class(here, labels, classes)
    hits, predicted, true = total(torch.stack([hits, predicted, true])).view(3, classes)[:, 1:]
    present = true > 0
    overlap = (hits + SMOOTH) / (hits + alpha * (predicted - hits) + beta * (true - hits) + SMOOTH)
    return ((1 - overlap) * present).sum() / present.sum().clamp_min(1)


def _by_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The sum ``[K]`` of the values ``[N, *spatial]`` of each class."""
    if values.is_cuda and torch.are_deterministic_algorithms_enabled():
        # index_add would add the voxels of a class one after another.
        return torch.stack([torch.where(labels == label, values, 0).sum() for label in range(classes)])
    return values.new_zeros(classes).index_add(0, labels.flatten(), values.flatten())


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted voxels of all ranks, as each rank's share (see ``mskd.ranks``)."""
    number = total(counted.sum().to(values.dtype)).clamp_min(1)
    return world() * (values * counted).sum() / number
