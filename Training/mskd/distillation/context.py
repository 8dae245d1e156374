"""What the terms of one batch share, computed when first asked for and once."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mskd.distillation.outputs import Outputs
from mskd.distillation.regions import Regions, area_pool_labels, pool_to
from mskd.distillation.saliency import FilterKind, channel_filter, spatial_filter

RegionMode = Literal["mask", "saliency", "hybrid"]


class Context:
    """Labels, regions and the teacher's saliency on the grid of each level. Carries no gradient.

    Args:
        teacher: The teacher's outputs, full precision, pooled to the common grids.
        labels: ``[B, *spatial]`` int64, or None where nothing is labelled. A value outside 0..K-1 is "no label": it
            belongs to no region. An item without a single label takes the teacher's prediction as its regions.
        strides: Per level, voxels per grid voxel and axis.
        mode: ``mask``: regions from labels, every voxel counts alike; ``saliency``: no labels, the regions are the two
            sides of the teacher's saliency map; ``hybrid``: labels say which region, saliency says what to filter.
        n_min: Grid voxels below which a region is absent.
    """

    def __init__(
        self,
        teacher: Outputs,
        labels: Tensor | None,
        *,
        strides: tuple[tuple[float, ...], ...],
        mode: RegionMode = "hybrid",
        n_min: float = 1.0,
    ) -> None:
        self.teacher = teacher
        self.mode = mode
        self.n_min = n_min
        self._labels = labels
        self._strides = strides
        self._region_labels: Tensor | None = None
        self._saliency: dict[int, Tensor] = {}
        self._regions: dict[int, Regions] = {}
        self._chance: Tensor | None = None
        self._correctness: dict[int, Tensor] = {}
        self._weight: dict[tuple[int, float, float, str], Tensor] = {}

    @property
    def levels(self) -> int:
        return len(self.teacher.features)

    def grid(self, level: int) -> tuple[int, ...]:
        """Spatial shape of the features of a level."""
        return tuple(self.teacher.features[level].shape[2:])

    @torch.no_grad()
    def saliency(self, level: int) -> Tensor:
        """The teacher's standardised saliency map Z_T, ``[B, n]``."""
        if level not in self._saliency:
            self._saliency[level] = channel_filter(self.teacher.features[level].flatten(2))
        return self._saliency[level]

    @torch.no_grad()
    def regions(self, level: int) -> Regions:
        """The regions of a level: one per class, or background and foreground of the saliency map."""
        if level not in self._regions:
            if self.mode == "saliency":
                foreground = (self.saliency(level) >= 0).to(self.teacher.logits.dtype)
                area = torch.stack([1 - foreground, foreground], dim=1)
            else:
                classes = self.teacher.logits.shape[1]
                area = area_pool_labels(self._masks(), classes, self.grid(level), self._strides[level])
            area = area.to(self.teacher.logits.dtype)
            self._regions[level] = Regions.of(area, self.grid(level), self.n_min)
        return self._regions[level]

    @torch.no_grad()
    def correctness(self, level: int) -> Tensor:
        """The teacher's probability of the true class, averaged to the grid, ``[B, n]``; 1 where there is no label."""
        if level not in self._correctness:
            chance = self._chance_of_truth()[:, None]
            self._correctness[level] = pool_to(chance, self.grid(level), self._strides[level]).flatten(1)
        return self._correctness[level]

    @torch.no_grad()
    def weight(self, level: int, *, theta: float, gamma: float, kind: FilterKind) -> Tensor:
        """W of a level, ``[B, n]``, mean 1: the spatial filter, or 1 everywhere where regions come from masks alone."""
        kind = "none" if self.mode == "mask" else kind
        key = (level, theta, gamma, kind)
        if key not in self._weight:
            self._weight[key] = spatial_filter(self.saliency(level), theta=theta, gamma=gamma, kind=kind)
        return self._weight[key]

    def _chance_of_truth(self) -> Tensor:
        """The teacher's probability of the true class, ``[B, *spatial]``; 1 where there is no label."""
        if self._chance is None:
            logits = self.teacher.logits
            if self._labels is None:
                return logits.new_ones(logits.shape[:1] + logits.shape[2:])
            known = self._known(self._labels)
            truth = logits.gather(1, (self._labels if known is None else self._labels.where(known, 0))[:, None])
            # 1 / sum_k exp(z_k - z_truth): an overflow to infinity is a chance of 0, as it should be.
            chance = (logits - truth).exp_().sum(1).reciprocal_()
            self._chance = chance if known is None else chance.where(known, 1.0)
        return self._chance

    def _known(self, labels: Tensor) -> Tensor | None:
        """Which voxels have a label; None where all have one, which spares some passes over the volume."""
        known = (labels >= 0) & (labels < self.teacher.logits.shape[1])
        return None if bool(known.all()) else known

    def _masks(self) -> Tensor:
        """The labels that make the regions: -1 where there is none, the teacher's prediction for unlabelled items."""
        if self._region_labels is None:
            logits = self.teacher.logits
            known = None if self._labels is None else self._known(self._labels)
            if self._labels is None:
                self._region_labels = logits.argmax(1)
            elif known is None:
                self._region_labels = self._labels
            else:
                masks = self._labels.where(known, -1)
                unlabelled = ~known.flatten(1).any(1)
                if bool(unlabelled.any()):
                    masks[unlabelled] = logits[unlabelled].argmax(1)
                self._region_labels = masks
        return self._region_labels
