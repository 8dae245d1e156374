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
"""Target voxels of a plane whose places, 8 bytes each, are kept from slice to slice."""


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

    def points(self) -> Tensor:
        """Where the target voxels lie, from -1 to 1 between the outer faces of the source."""
        return (self.lower + self.share + 0.5) * (2 / (self.cells + self.between)) - 1

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
    """Some target voxels of a plane, in N parts for as many threads; the last may be there several times.

    Args:
        places: ``[N * M]``, counted row by row.
        points: Their x and y in the source plane, from -1 to 1 between its outer faces, ``[N, 1, M, 2]``.
    """

    places: Tensor
    points: Tensor

    def values(self, planes: Tensor) -> Tensor:
        """Values ``[N, s, K, M]`` interpolated linearly from source planes ``[s, K, y, x]``, float32."""
        channels, parts = planes.flatten(0, 1), len(self.points)
        # PyTorch divides a batch among its threads, not an image.
        batch = channels.expand(parts, -1, -1, -1)
        values = F.grid_sample(batch, self.points, mode="bilinear", padding_mode="border", align_corners=False)
        return values.view(parts, *planes.shape[:2], -1)

    def put(self, values: Tensor, planes: Tensor) -> None:
        """Write values ``[N, 1 or z, M]`` into target planes ``[z, y, x]``."""
        planes.flatten(1).scatter_(1, *self._rows(values, planes))

    def raise_to(self, values: Tensor, planes: Tensor) -> None:
        """As :meth:`put`, where they are larger than what is there."""
        planes.flatten(1).scatter_reduce_(1, *self._rows(values, planes), "amax")

    def _rows(self, values: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Places and values, a row for each plane."""
        rows = values.transpose(0, 1).flatten(1).expand(len(planes), -1)
        return self.places.expand_as(rows), rows


class Plane:
    """From the voxels of a source plane to those of a target plane, a band of rows at a time.

    Args:
        y: From target to source rows.
        x: From target to source columns.
    """

    def __init__(self, y: Axis, x: Axis) -> None:
        self.y, self.x = y, x
        height, width = len(y.lower), len(x.lower)
        rows = max(1, BAND // width)
        self.bands = tuple(slice(first, min(first + rows, height)) for first in range(0, height, rows))
        self._keeps = height * width <= KEPT
        self._known: dict[int, Tensor] = {}

    def interpolate(self, values: Tensor) -> Tensor:
        """A whole target plane of source values ``[y, x]``."""
        return self.x.interpolate(self.y.interpolate(values, 0), 1)

    def spots(self, wanted: Tensor, most: int) -> Iterator[Spots]:
        """Where to interpolate: the target voxels of a mask ``[target y, target x]``, at most so many for a thread."""
        parts = torch.get_num_threads() if wanted.device.type == "cpu" else 1
        for band in self.bands:
            chosen = wanted[band].flatten().nonzero().squeeze(1)
            if not len(chosen):
                continue
            chosen, points = torch.cat([chosen, chosen[-1:].expand(-len(chosen) % parts)]), self._points(band)
            for places in chosen.split(most * parts):
                part = points.index_select(0, places).view(parts, 1, -1, 2)
                yield Spots(places + band.start * wanted.shape[1], part)

    def _points(self, band: slice) -> Tensor:
        """Where each target voxel lies in the source plane, ``[target, 2]``."""
        if band.start in self._known:
            return self._known[band.start]
        y, x = self.y.points()[band], self.x.points()
        made = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=2).flatten(0, 1)
        if self._keeps:
            self._known[band.start] = made
        return made
