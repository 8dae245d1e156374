"""Linear interpolation at chosen voxels of a finer or coarser grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BAND = 1 << 18
"""Target voxels of a band of rows."""

KEPT = 1 << 21
"""Target voxels of a plane whose tables, 32 bytes each, are kept from slice to slice."""


@dataclass(frozen=True)
class Axis:
    """How the voxels of one axis lie between those of the axis they are interpolated from.

    Args:
        lower: For each target voxel, the source voxel at or below its centre.
        share: The weight of the source voxel after that one.
        between: Whether there is one after it to look at; not where both axes are the same.
        cells: Number of gaps between source voxels; of source voxels where nothing lies ``between``.
    """

    lower: Tensor
    share: Tensor
    between: bool
    cells: int

    def ready(self, count: int) -> int:
        """How many target voxels, from the first on, need none but the first ``count`` source voxels."""
        return int(torch.searchsorted(self.lower, count - self.between))

    def part(self, first: int, last: int) -> tuple[Axis, int, int]:
        """Target voxels ``first`` to ``last`` (excluded), and the range of source voxels that they need.

        ``lower`` counts from the first of those.
        """
        start, stop = int(self.lower[first]), int(self.lower[last - 1]) + 1
        part = Axis(self.lower[first:last] - start, self.share[first:last], self.between, stop - start)
        return part, start, stop + self.between

    def interpolate(self, plane: Tensor, dim: int) -> Tensor:
        """Values at the target voxels from those of the source voxels along ``dim`` of a plane ``[y, x]``."""
        below = plane.index_select(dim, self.lower)
        if not self.between:
            return below
        share = self.share.unsqueeze(1 - dim)
        return below.lerp_(plane.index_select(dim, self.lower + 1), share)


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
        return Axis(lower.to(device), torch.zeros(target, device=device), False, source)
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * (extent / target) - 0.5
    centre.clamp_(0, source - 1)
    lower = centre.long().clamp_max_(source - 2)
    return Axis(lower.to(device), (centre - lower).float().to(device), True, source - 1)


@dataclass(frozen=True)
class Spots:
    """Some target voxels of a plane, and what surrounds them.

    Args:
        places: ``[M]``, counted row by row.
        index: Source voxels around each, ``[M, 2 or 4]``.
        weights: Of those.
    """

    places: Tensor
    index: Tensor
    weights: Tensor

    def values(self, plane: Tensor) -> Tensor:
        """Values ``[M, K]`` interpolated from source values ``[y, x, K]``, float32, contiguous."""
        # One fused gather and weighted sum: the corners of a voxel are never written out.
        return F.embedding_bag(self.index, plane.flatten(0, 1), per_sample_weights=self.weights, mode="sum")


class Plane:
    """From the voxels of a source plane to those of a target plane, a band of rows at a time.

    Args:
        y: From target to source rows.
        x: From target to source columns.
        columns: Source columns.
    """

    def __init__(self, y: Axis, x: Axis, columns: int) -> None:
        self.y, self.x = y, x
        self._columns = columns
        height, width = len(y.lower), len(x.lower)
        rows = max(1, BAND // width)
        self.bands = tuple(slice(first, min(first + rows, height)) for first in range(0, height, rows))
        self._keeps = height * width <= KEPT
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def interpolate(self, values: Tensor) -> Tensor:
        """A whole target plane of source values ``[y, x]``."""
        return self.x.interpolate(self.y.interpolate(values, 0), 1)

    def spots(self, wanted: Tensor) -> Iterator[Spots]:
        """Where to interpolate: the target voxels of a mask ``[target y, target x]``, band by band."""
        for band in self.bands:
            places = wanted[band].flatten().nonzero().squeeze(1)
            if len(places):
                index, weights = (table.index_select(0, places) for table in self._corners(band))
                yield Spots(places + band.start * wanted.shape[1], index, weights)

    def _corners(self, band: slice) -> tuple[Tensor, Tensor]:
        """Where the source voxels around each target voxel lie, and their weights, ``[target, 1, 2 or 4]`` both."""
        if band.start in self._known:
            return self._known[band.start]
        rows, columns = _corners(self.y, band) * self._columns, _corners(self.x, slice(None))
        index = rows[:, None, :, None] + columns[None, :, None, :]
        weights = _weights(self.y, band)[:, None, :, None] * _weights(self.x, slice(None))[None, :, None, :]
        made = index.int().flatten(2).flatten(0, 1), weights.flatten(2).flatten(0, 1)
        if self._keeps:
            self._known[band.start] = made
        return made


def _corners(axis: Axis, part: slice) -> Tensor:
    """Source voxels ``[target, 1 or 2]`` around each target voxel."""
    return axis.lower[part, None] + torch.arange(1 + axis.between, device=axis.lower.device)


def _weights(axis: Axis, part: slice) -> Tensor:
    upper = axis.share[part, None]
    return torch.cat([1 - upper, upper], dim=1) if axis.between else torch.ones_like(upper)
