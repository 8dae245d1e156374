"""Linear interpolation at chosen voxels of a finer or coarser grid over the same box."""

from __future__ import annotations

from collections.abc import Callable
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


def between_slices(grid: Tensor, z: Axis, first: int, last: int) -> Tensor:
    """Source planes ``[last - first, y, x, K]`` of some target slices, from ``[z, y, x, K]``."""
    lower = z.lower[first:last]
    if not z.between:
        return _slices(grid, lower)
    return torch.lerp(_slices(grid, lower), _slices(grid, lower + 1), z.share[first:last, None, None, None])


def _slices(grid: Tensor, places: Tensor) -> Tensor:
    """A view where it is a single one."""
    return grid.narrow(0, int(places), 1) if len(places) == 1 else grid.index_select(0, places)


class Plane:
    """From the voxels of a source plane to those of a target plane.

    Args:
        y: From target to source rows.
        x: From target to source columns.
        columns: Source columns.
    """

    def __init__(self, y: Axis, x: Axis, columns: int) -> None:
        self.y, self.x = y, x
        self.size = (len(y.lower), len(x.lower))
        # The corners around each target voxel, row by row, and their weights.
        self._index = _pairs(_corners(y, columns), _corners(x, 1), torch.add)
        self._weights = _pairs(_weights(y), _weights(x), torch.mul)

    def all(self, planes: Tensor) -> Tensor:
        """Values ``[n, target y, target x, K]`` from source planes ``[n, y, x, K]``, float32."""
        # What F.interpolate calls; that one takes no scale beside a size.
        scales = 1 / self.y.pace, 1 / self.x.pace
        wide = torch.ops.aten.upsample_bilinear2d(planes.permute(0, 3, 1, 2), list(self.size), False, *scales)
        return wide.permute(0, 2, 3, 1)

    def some(self, plane: Tensor, places: Tensor) -> Tensor:
        """Values ``[M, K]`` at the target voxels ``places`` ``[M]``, counted row by row, of one plane ``[y, x, K]``."""
        index, weights = self._index.index_select(0, places), self._weights.index_select(0, places)
        # One fused gather and weighted sum: the corners of a voxel are never written out.
        return F.embedding_bag(index, plane.flatten(0, 1), per_sample_weights=weights, mode="sum")


def _corners(axis: Axis, stride: int) -> Tensor:
    """Places ``[target, 1 or 2]`` of the source voxels around each target voxel."""
    steps = torch.arange(1 + axis.between, device=axis.lower.device)
    return ((axis.lower[:, None] + steps) * stride).int()


def _weights(axis: Axis) -> Tensor:
    upper = axis.share[:, None]
    return torch.cat([1 - upper, upper], dim=1) if axis.between else torch.ones_like(upper)


def _pairs(rows: Tensor, columns: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``[y * x, a * b]`` from ``[y, a]`` and ``[x, b]``."""
    return join(rows[:, None, :, None], columns[None, :, None, :]).flatten(2).flatten(0, 1)
