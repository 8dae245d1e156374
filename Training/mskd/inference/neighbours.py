"""Linear interpolation at chosen voxels of a finer or coarser grid over the same box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """How the voxels of one axis lie between those of the axis they are interpolated from.

    Args:
        lower: For each target voxel, the source voxel at or below its centre.
        share: The weight of the source voxel after that one.
        between: Whether there is one after it to look at; not where both axes are the same.
        cells: Number of gaps between source voxels; of source voxels where nothing lies ``between``.
        pace: Source voxels from one target voxel to the next.
    """

    lower: Tensor
    share: Tensor
    between: bool
    cells: int
    pace: float

    def ready(self, count: int) -> int:
        """How many target voxels, from the first on, need none but the first ``count`` source voxels."""
        return int(torch.searchsorted(self.lower, count - self.between))

    def part(self, first: int, last: int) -> tuple[Axis, int, int]:
        """Target voxels ``first`` to ``last`` (excluded), and the range of source voxels that they need.

        ``lower`` counts from the first of those.
        """
        start, stop = int(self.lower[first]), int(self.lower[last - 1]) + 1
        part = Axis(self.lower[first:last] - start, self.share[first:last], self.between, stop - start, self.pace)
        return part, start, stop + self.between


def make_axis(source: int, target: int, device: torch.device, extent: float | None = None) -> Axis:
    """The outer faces of both axes coincide; beyond the outermost centres the outermost voxel counts alone.

    Args:
        source: Voxels to interpolate from.
        target: Voxels to interpolate at.
        device: Where the result lies.
        extent: How many source voxels the target covers, where the last one reaches beyond it.
    """
    extent = source if extent is None else extent
    if extent == target or source == 1:
        lower = torch.arange(target) if extent == target else torch.zeros(target, dtype=torch.int64)
        return Axis(lower.to(device), torch.zeros(target, device=device), False, source, extent / target)
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * (extent / target) - 0.5
    centre.clamp_(0, source - 1)
    lower = centre.long().clamp_max_(source - 2)
    return Axis(lower.to(device), (centre - lower).float().to(device), True, source - 1, extent / target)


Axes = tuple[Axis, Axis, Axis]


def interpolate(rows: Tensor, shape: tuple[int, int, int], axes: Axes, places: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Values ``[M, K]`` at M target voxels.

    Args:
        rows: Source values ``[z * y * x, K]``, float32.
        shape: Source voxels (z, y, x).
        axes: From target to source voxels, of each axis.
        places: Target indices z, y and x, each ``[M]``.
    """
    strides = (shape[1] * shape[2], shape[2], 1)
    lowest = [axis.lower[at] * stride for axis, at, stride in zip(axes, places, strides, strict=True)]
    index = (lowest[0] + lowest[1] + lowest[2])[:, None]
    weight = torch.ones(index.shape, device=rows.device)
    for axis, at, stride in zip(axes, places, strides, strict=True):
        if axis.between:
            upper = axis.share[at][:, None]
            index = torch.cat([index, index + stride], dim=1)
            weight = torch.cat([weight * (1 - upper), weight * upper], dim=1)
    # One fused gather and weighted sum: the corners of a voxel are never written out.
    return F.embedding_bag(index, rows, per_sample_weights=weight, mode="sum")


def interpolate_planes(grid: Tensor, axes: Axes, first: int, last: int) -> Tensor:
    """Values ``[last - first, y, x, K]`` at all target voxels of some slices.

    Args:
        grid: Source values ``[z, y, x, K]``, float32, contiguous.
        axes: From target to source voxels; y and x are no parts of one.
        first: Target slice.
        last: Target slice, excluded.
    """
    z, y, x = axes
    values = grid.index_select(0, z.lower[first:last])
    if z.between:
        above = grid.index_select(0, z.lower[first:last] + 1)
        values = torch.lerp(values, above, z.share[first:last, None, None, None])
    size = [len(y.lower), len(x.lower)]
    # What F.interpolate calls; that one takes no scale beside a size.
    planes = torch.ops.aten.upsample_bilinear2d(values.permute(0, 3, 1, 2), size, False, 1 / y.pace, 1 / x.pace)
    return planes.permute(0, 2, 3, 1)
