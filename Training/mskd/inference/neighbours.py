"""Linear interpolation between the voxels of a finer or coarser grid: everywhere, or in chosen cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor


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


Axes = tuple[Axis, Axis, Axis]

RUN_COST = 1
"""What a run costs beside its voxels, counted in voxels: there are logits to fetch for it."""


@dataclass(frozen=True)
class Runs:
    """The target voxels of an axis in R runs of T, each within one cell.

    Args:
        cell: ``[R]``.
        target: Which voxels, ``[T, R]``; the last of a shorter run several times.
        share: Of each the weight of the source voxel after the cell's first, ``[T, R]``.
        corners: Source voxels around a cell: 2, or 1 where nothing lies between two.
    """

    cell: Tensor
    target: Tensor
    share: Tensor
    corners: int


def make_runs(axis: Axis) -> Runs:
    """Of the length that is cheapest: short ones are many, in long ones voxels are there several times."""
    every = torch.arange(len(axis.lower), device=axis.lower.device)
    counts = torch.unique_consecutive(axis.lower, return_counts=True)[1]
    lengths = torch.arange(1, int(counts.max()) + 1, device=counts.device)
    runs = (counts[:, None] / lengths).ceil().sum(dim=0)
    length = 1 + int((runs * (lengths + RUN_COST)).argmin())
    first = every[(every - torch.searchsorted(axis.lower, axis.lower)) % length == 0]
    last = torch.cat([first[1:] - 1, every[-1:]])
    target = torch.minimum(first + every[:length, None], last)
    return Runs(axis.lower[first], target, axis.share[target], 1 + axis.between)


@dataclass(frozen=True)
class Tiles:
    """N blocks of target voxels ``[z, y, x, N]``, each within one cell; a cell may have several.

    Args:
        runs: Of each axis.
        chosen: Which run of each axis a block is, as places in the flat ``[z runs, y runs, x runs]``, ``[N]``.
        source: Rows and columns of a source slice.
        target: Those of a target slice.
    """

    runs: tuple[Runs, Runs, Runs]
    chosen: Tensor
    source: tuple[int, int]
    target: tuple[int, int]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sides of a block."""
        z, y, x = (len(run.target) for run in self.runs)
        return z, y, x

    def select(self, which: Tensor) -> Tiles:
        """Some of the blocks."""
        return Tiles(self.runs, self.chosen.index_select(0, which), self.source, self.target)

    def split(self, values: int, channels: int = 1) -> Iterator[Tiles]:
        """In parts, of one block at least.

        Args:
            values: How many a part may have: at its target voxels, or of all channels around its cells.
            channels: Of what is to be interpolated.
        """
        sides = prod(max(len(run.target), run.corners) for run in self.runs)
        count = max(1, values // max(sides, channels * prod(run.corners for run in self.runs)))
        return (Tiles(self.runs, part, self.source, self.target) for part in self.chosen.split(count) if len(part))

    @cached_property
    def cells(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where the cells are along each axis, ``[N]``."""
        z, y, x = (run.cell.gather(0, which) for run, which in zip(self.runs, self._which, strict=True))
        return z, y, x

    @cached_property
    def _which(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which run of each axis a block is, ``[N]``."""
        height, width = len(self.runs[1].cell), len(self.runs[2].cell)
        rows = self.chosen.div(width, rounding_mode="floor")
        slices = rows.div(height, rounding_mode="floor")
        return slices, rows - slices * height, self.chosen - rows * width

    def corners(self) -> Tensor:
        """Where the source voxels around the cells are in the flat source, ``[1 to 8, N]``."""
        height, width = self.source
        z, y, x = self.cells
        steps = [0]
        for run, step in zip(self.runs, (height * width, width, 1), strict=True):
            steps = [before + more for before in steps for more in (0, step)[: run.corners]]
        return (z * height + y) * width + x + torch.tensor(steps, device=z.device)[:, None]

    def places(self) -> Tensor:
        """Where the target voxels are in the flat target, ``[z, y, x, N]``."""
        height, width = self.target
        tables = [run.target * step for run, step in zip(self.runs, (height * width, width, 1), strict=True)]
        z, y, x = (_look_up(table, which) for table, which in zip(tables, self._which, strict=True))
        return z[:, None, None] + (y[:, None] + x)

    def interpolate(self, corners: Tensor) -> Tensor:
        """Values ``[*, z, y, x, N]`` from those at the :meth:`corners`, ``[*, 1 to 8, N]``."""
        values = corners.unflatten(-2, [run.corners for run in self.runs])
        for axis, (run, which) in enumerate(zip(self.runs, self._which, strict=True)):
            if run.corners == 2:
                below, above = values.split(1, dim=axis - 4)
                sides = [-1 if own == axis else 1 for own in range(3)]
                values = torch.lerp(below, above, _look_up(run.share, which).view(*sides, len(self)))
        return values.expand(*values.shape[:-4], *self.shape, -1)


def make_tiles(axes: Axes, wanted: Tensor) -> Tiles:
    """All target voxels within the cells of a mask ``[z, y, x]``."""
    z, y, x = runs = make_runs(axes[0]), make_runs(axes[1]), make_runs(axes[2])
    chosen = wanted.index_select(0, z.cell).index_select(1, y.cell).index_select(2, x.cell).flatten().nonzero()
    source = axes[1].cells + axes[1].between, axes[2].cells + axes[2].between
    return Tiles(runs, chosen.squeeze(1), source, (len(axes[1].lower), len(axes[2].lower)))


def _look_up(table: Tensor, which: Tensor) -> Tensor:
    """Some columns of ``[T, R]``."""
    return table.gather(1, which.expand(len(table), -1))
