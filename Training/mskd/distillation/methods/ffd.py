"""Feature Filtering Distillation: region-level semantics, filtered by what the teacher is sure and right about."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mskd.distillation.base import METHODS, FilterSettings, Method, Weight, voxel_weight
from mskd.distillation.context import Context
from mskd.distillation.outputs import Outputs, Shapes
from mskd.distillation.regions import Regions
from mskd.distillation.saliency import channel_filter


def ffd_loss(student: Tensor, teacher: Tensor, weight: Tensor, share: Tensor) -> Tensor:
    """mean_b sum_p r W c (Z_S - Z_T)^2 / sum_k v_k alpha_k.

    Args:
        student, teacher: Saliency maps Z_S, Z_T ``[B, n]``.
        weight: W c ``[B, n]``, the spatial filter times the teacher's correctness.
        share: r / sum_k v_k alpha_k ``[B, n]``, how much each voxel's region gives it; sums to 1, or to 0 in an item
            without a region.
    """
    return (share * weight * (student - teacher).square()).sum(-1).mean()


def region_share(regions: Regions, background: float, *, normalise: bool) -> Tensor:
    """r(p) / sum_k v_k alpha_k with r(p) = sum_k v_k alpha_k A_k(p) / N_k: ``[B, n]``.

    Each organ that is present counts the same, whatever its size; an absent one (v_k = 0) is in no normaliser.

    Args:
        background: alpha of region 0; every other region has 1.
        normalise: False lets each voxel count the same instead: sum_k v_k alpha_k A_k(p) / sum_k v_k alpha_k N_k.
    """
    weight = regions.valid.to(regions.area.dtype)
    weight[:, 0] *= background
    unit = regions.size.clamp(min=torch.finfo(weight.dtype).tiny) if normalise else torch.ones_like(weight)
    total = (weight if normalise else weight * regions.size).sum(-1, keepdim=True)
    per_region = torch.where(weight > 0, weight / unit, 0.0) / torch.where(total > 0, total, 1.0)
    return torch.einsum("bk,bkn->bn", per_region, regions.area)


class FFDSettings(FilterSettings):
    """FFD's switches, besides those of the spatial filter.

    Args:
        weight: The default is near what calibration gives for a small 3D student; see ``calibrate``.
        correctness: Weigh each voxel by the teacher's probability of the true class: where it is wrong, it is silent.
        region_normalisation: Let every organ count the same; off, every voxel counts the same.
        background: Weight of the background against an organ.
    """

    weight: Weight = 0.01
    correctness: bool = True
    region_normalisation: bool = True
    background: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5


@METHODS.register("ffd")
class FFD(Method):
    """Sum of the loss over levels; no parameters."""

    Settings = FFDSettings

    def __init__(self, settings: FFDSettings, shapes: Shapes) -> None:
        super().__init__(settings, shapes)
        self.settings = settings

    def forward(self, student: Outputs, teacher: Outputs, context: Context) -> Tensor:
        return torch.stack([self._level(student.features[i], context, i) for i in range(context.levels)]).sum()

    def _level(self, features: Tensor, context: Context, level: int) -> Tensor:
        weight = voxel_weight(self.settings, context, level)
        if self.settings.correctness:
            weight = weight * context.correctness(level)
        regions = context.regions(level)
        share = region_share(regions, self.settings.background, normalise=self.settings.region_normalisation)
        return ffd_loss(channel_filter(features.flatten(2)), context.saliency(level), weight, share)
