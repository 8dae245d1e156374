"""Which grid voxels belong to which region: organs by label, or the teacher's salient part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CORE = 0.5
RING_WIDTH = 2


@dataclass(frozen=True)
class Regions:
    """Soft regions of a feature grid, flattened over its ``n`` voxels. Region 0 is the background.

    Args:
        area: ``[B, R, n]`` in [0, 1], the share of each grid voxel that the region covers (A in the equations).
        size: ``[B, R]`` grid voxels, the sum of ``area`` over n (N_k).
        valid: ``[B, R]``, False for a region that is absent: fewer than ``n_min`` grid voxels.
        grid: The spatial shape that n flattens.
        n_min: Grid voxels a region, or a part of one, needs to count as present.
    """

    area: Tensor
    size: Tensor
    valid: Tensor
    grid: tuple[int, ...]
    n_min: float

    @classmethod
    def of(cls, area: Tensor, grid: Sequence[int], n_min: float) -> Regions:
        size = area.sum(-1)
        return cls(area, size, size >= n_min, tuple(grid), n_min)

    @property
    def has_foreground(self) -> Tensor:
        """``[B]``, True where at least one region besides the background is present."""
        return self.valid[:, 1:].any(-1)


def axis_cells(side: int, cells: int, stride: float, device: torch.device) -> Tensor:
    """``[side]``: the grid index under each voxel of one axis, for a grid that starts where the voxels start."""
    centres = torch.arange(side, device=device, dtype=torch.float64) + 0.5
    return (centres / stride).long().clamp_(max=cells - 1)


def flat_cells(shape: Sequence[int], grid: Sequence[int], strides: Sequence[float], device: torch.device) -> Tensor:
    """``[prod(shape)]``: the flattened index of the grid voxel that each voxel lies in."""
    index = torch.zeros((1,) * len(shape), dtype=torch.long, device=device)
    for axis, (side, cells, stride) in enumerate(zip(shape, grid, strides, strict=True)):
        along = axis_cells(side, cells, stride, device).view([-1 if a == axis else 1 for a in range(len(shape))])
        index = index * cells + along
    return index.expand(*shape).reshape(-1)


def area_pool_labels(labels: Tensor, classes: int, grid: Sequence[int], strides: Sequence[float]) -> Tensor:
    """The share of each grid voxel that each class covers: one-hot labels, averaged over the voxels of the grid voxel.

    Counts voxels instead of pooling a one-hot volume, so that no ``[B, K, *shape]`` tensor is made. Nearest-neighbour
    sampling would erase small organs.

    Args:
        labels: ``[B, *shape]`` int64; a value outside 0..K-1 belongs to no class.
        classes: K.
        grid: Spatial shape of the features.
        strides: Voxels per grid voxel and axis; the last grid voxel of an axis may be cut short by the volume's end.

    Returns:
        ``[B, K, n]`` float32.
    """
    if tuple(grid) == tuple(labels.shape[1:]):
        return (labels.flatten(1)[:, None] == torch.arange(classes, device=labels.device)[:, None]).float()
    batch, cells = labels.shape[0], prod(grid)
    cell = flat_cells(labels.shape[1:], grid, strides, labels.device)
    flat = labels.reshape(batch, -1)
    row = torch.where((flat >= 0) & (flat < classes), flat, classes)
    row = row + (classes + 1) * torch.arange(batch, device=labels.device)[:, None]
    counts = torch.bincount((row * cells + cell).reshape(-1), minlength=batch * (classes + 1) * cells)
    voxels = torch.bincount(cell, minlength=cells).clamp(min=1)
    return counts.view(batch, classes + 1, cells)[:, :classes].float() / voxels


def pool_to(values: Tensor, grid: Sequence[int], steps: Sequence[float]) -> Tensor:
    """``values`` ``[B, C, *finer]`` averaged to ``grid``; ``steps`` is how many of them lie in a grid voxel, per axis.

    Whole steps average exactly the values of each grid voxel, at a ragged end those that exist.
    """
    if tuple(values.shape[2:]) == tuple(grid):
        return values
    dim = len(grid)
    if all(float(step).is_integer() for step in steps):
        pool = F.avg_pool2d if dim == 2 else F.avg_pool3d
        return pool(values, [int(step) for step in steps], ceil_mode=True)
    sizes: Any = tuple(grid)
    return F.adaptive_avg_pool2d(values, sizes) if dim == 2 else F.adaptive_avg_pool3d(values, sizes)


def background_ring(area: Tensor, grid: Sequence[int]) -> Tensor:
    """The background within ``RING_WIDTH`` grid voxels of the foreground: ``[B, n]`` share of each grid voxel.

    The foreground is every grid voxel that a class other than 0 touches; it is dilated by a cube and taken away again.
    """
    touched = (area[:, 1:].sum(1) > 0).view(-1, *grid)
    near = touched
    for axis, side in enumerate(grid, start=1):
        # One axis after another makes the cube; shifted copies are many times cheaper than max pooling.
        grown = near.clone()
        for step in range(1, min(RING_WIDTH, side - 1) + 1):
            grown.narrow(axis, step, side - step).logical_or_(near.narrow(axis, 0, side - step))
            grown.narrow(axis, 0, side - step).logical_or_(near.narrow(axis, step, side - step))
        near = grown
    return area[:, 0] * (near & ~touched).flatten(1)
