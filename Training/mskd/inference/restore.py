"""From logits on the prepared grid to labels on the image's own, without ever holding full-size logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mskd.errors import Cancelled
from mskd.events import CancelCheck
from mskd.image.geometry import LabelMap
from mskd.inference.grid import Grid
from mskd.inference.neighbours import Axes, Axis, Tiles, make_axis, make_tiles
from mskd.inference.region import Region
from mskd.inference.uncertainty import Confidence, entropy_percent
from mskd.inference.windows import Shape, divided

SLAB_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}
"""Logits of a slab, in float32."""

SLAB_VOXELS = {"cpu": 16 << 20, "cuda": 64 << 20}
"""Target voxels of a slab."""

BORDER_VALUES = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Numbers along borders that are worked on at a time: few, for the sake of a processor's caches."""

NOWHERE = -1e30
"""Logit of a label that is not looked for."""

MIXED = 255
"""In a map of cells: not one label. A label with this value is treated as such a cell, which costs time."""


@torch.inference_mode()
def restore(
    slabs: Iterable[Tensor],
    grid: Grid,
    region: Region | None = None,
    *,
    step: Shape = (1, 1, 1),
    entropy: NDArray[np.uint8] | None = None,
    confidence: Confidence | None = None,
    on_slab: Callable[[int, int], None],
    cancelled: CancelCheck,
) -> LabelMap:
    """Interpolate the logits linearly and take the largest, slab by slab.

    Where all the prepared voxels around a voxel have the same label, so has the voxel, whatever the weights of the
    interpolation; only the others, along borders, are interpolated, and mostly only the difference of the two labels
    there. A label that wins at no voxel of the two prepared slices around a slice is not looked for in it.

    Args:
        slabs: Logits ``[K, some z, y, x]`` on the prepared grid, which join along z; channels-last memory and half
            precision are as good. Of one that is done with, only the slices that the next one needs are kept.
        grid: The way back to the source grid.
        region: Voxels whose centre lies outside become background.
        step: Prepared voxels, along each axis, to one of the logits; the last of those may reach beyond the grid.
        entropy: Filled where given: zeros ``[z, y, x]`` on the source grid that become the entropy of each voxel's
            probabilities, in percent of the largest possible. It is interpolated from that of the logits' voxels;
            along borders it is at least that of the interpolated logits of the labels there.
        confidence: Told the logits, one a voxel of theirs, and the label of each.
        on_slab: Told (done, total) slices.
        cancelled: Asked between some slices and the next.

    Returns:
        Labels on the source grid; 0 outside the crop.

    Raises:
        Cancelled: ``cancelled`` said so.
    """
    labels = np.zeros(grid.source.shape, dtype=np.uint8)
    target = grid.view(labels)
    unsure = None if entropy is None else grid.view(entropy)
    depth = grid.crop_shape[0]
    for portion in _portions(slabs, grid, step):
        if cancelled():
            raise Cancelled("The segmentation was cancelled; nothing was written.")
        slab = _Slab(portion.logits, portion.fresh, confidence)
        found, percent = slab.restore(portion.axes, entropy is not None)
        target[portion.rows] = found.cpu().numpy()
        if unsure is not None and percent is not None:
            unsure[portion.rows] = percent.cpu().numpy()
        on_slab(portion.rows.stop, depth)
        del portion, slab  # their memory is needed for the next ones
    if region is not None:
        outside = ~region.mask(grid.oriented, grid.crop)
        target[outside] = 0
        if unsure is not None:
            unsure[outside] = 0
    return LabelMap(labels, grid.source)


@dataclass(frozen=True)
class _Portion:
    """Target slices, and what to interpolate them from.

    Args:
        rows: The target slices.
        logits: The source slices that they need.
        axes: From target voxels to those.
        fresh: The first source slice that no portion before had.
    """

    rows: slice
    logits: Tensor
    axes: Axes
    fresh: int


def _portions(slabs: Iterable[Tensor], grid: Grid, step: Shape) -> Iterator[_Portion]:
    """Target slices in order, a few at a time, as soon as the source slices around them are there."""
    depth, first, top, told = grid.crop_shape[0], 0, 0, 0
    shape = divided(grid.geometry.shape, step)
    held: Tensor | None = None
    axes: Axes | None = None
    for slab in slabs:
        # Apple's GPUs lack operations that are used here.
        slab = slab.cpu() if slab.device.type == "mps" else slab
        held = slab if held is None else torch.cat([held, slab], dim=1)
        z, y, x = axes = axes or _axes(shape, grid, step, held.device)
        rows, ready = _slab_rows(shape, held, grid.crop_shape), z.ready(top + held.shape[1])
        for begin in range(first, ready, rows):
            end = min(ready, begin + rows)
            part, start, stop = z.part(begin, end)
            yield _Portion(slice(begin, end), held[:, start - top : stop - top], (part, y, x), max(0, told - start))
            told = stop
        first = ready
        bottom = int(z.lower[ready]) if ready < depth else top + held.shape[1]
        # A copy: a view would keep the whole slab.
        held, top = held[:, bottom - top :].clone(), bottom
        del slab


def _axes(shape: Shape, grid: Grid, step: Shape, device: torch.device) -> Axes:
    """From target to source voxels."""
    sides = zip(shape, grid.crop_shape, grid.geometry.shape, step, strict=True)
    z, y, x = (make_axis(source, target, device, full / one) for source, target, full, one in sides)
    return z, y, x


def _slab_rows(source: Shape, logits: Tensor, target: Shape) -> int:
    """Target slices at a time."""
    planes = _limit(SLAB_BYTES, logits.device) / (4 * logits.shape[0] * logits.shape[2] * logits.shape[3])
    rows = int(planes * target[0] / source[0])
    return max(1, min(rows, _limit(SLAB_VOXELS, logits.device) // (target[1] * target[2])))


class _Slab:
    """Some slices of the logits, and the class that wins in each voxel.

    Args:
        logits: ``[K, z, y, x]``.
        fresh: The first slice that ``confidence`` was not told of.
        confidence: Told of the others.
    """

    def __init__(self, logits: Tensor, fresh: int, confidence: Confidence | None) -> None:
        # The voxels of a class lie side by side, so that whole vectors of them are worked on at once.
        self.logits = logits.float() if logits.stride(3) == 1 else logits.contiguous().float()
        self.winner = torch.empty(logits.shape[1:], dtype=torch.uint8, device=logits.device)
        names, slices = torch.arange(len(logits), device=logits.device), self.winner.flatten(1)
        # Whether a label wins somewhere in a slice; all do where the difference of two logits is no number.
        self.wins = torch.empty(len(slices), len(names), dtype=torch.bool, device=logits.device)
        probability = torch.empty_like(slices, dtype=torch.float32)
        for z, (winner, wins) in enumerate(zip(slices, self.wins, strict=True)):
            below = self._below(z)
            if confidence is not None and z >= fresh:
                # Of the winner, exp(0) is left over the sum.
                torch.reciprocal(below.exp().sum(dim=0), out=probability[z])
            torch.logical_not(below.amax(dim=1) < 0, out=wins)
            winner.copy_(_winner(below, names))
        if confidence is not None:
            confidence.add(probability[fresh:], slices[fresh:])

    def restore(self, axes: Axes, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
        """Labels of the target slices, and entropy where it is wanted."""
        cells = _cells(self.winner, axes)
        labels = cells
        for dim in (2, 1, 0):
            labels = labels.index_select(dim, axes[dim].lower)
        percent = self._entropy(axes) if with_entropy else None
        every = make_tiles(axes, cells == MIXED)
        if not len(every):
            return labels, percent
        border = _Border(self.logits, self.winner, self.wins, axes[0])
        for tiles in every.split(_limit(BORDER_VALUES, labels.device), len(border.names)):
            border.label(tiles, labels)
            if percent is not None:
                border.raise_entropy(tiles, percent)
        return labels, percent

    def _below(self, z: int) -> Tensor:
        """Logits ``[K, y * x]`` of a slice less the largest of each voxel."""
        logits = self.logits[:, z].flatten(1)
        return logits - logits.amax(dim=0)

    def _entropy(self, axes: Axes) -> Tensor:
        """Entropy of the logits' voxels in percent, interpolated linearly: final except along borders."""
        slices = [entropy_percent(self._below(index), len(self.logits)) for index in range(len(self.winner))]
        source = torch.stack(slices).view(self.winner.shape)
        z, y, x = axes
        found = self.winner.new_empty(len(z.lower), len(y.lower), len(x.lower))
        for row, (cell, share) in enumerate(zip(z.lower.tolist(), z.share.tolist(), strict=True)):
            plane = torch.lerp(source[cell], source[cell + 1], share) if z.between else source[cell]
            found[row] = x.interpolate(y.interpolate(plane, 0), 1).round_()
        return found


class _Border:
    """Target voxels between source voxels of several labels; ``names`` are those that win somewhere.

    Args:
        logits: ``[K, z, y, x]``.
        winner: The label of each voxel, uint8 ``[z, y, x]``.
        wins: Whether a label wins somewhere in a slice, ``[z, K]``.
        z: From target to source slices.
    """

    def __init__(self, logits: Tensor, winner: Tensor, wins: Tensor, z: Axis) -> None:
        ever = wins.any(dim=0)
        self._classes = len(logits)
        self.names = ever.nonzero().squeeze(1)
        # Where a difference of logits is no number, 0 may be the label, and none of the names.
        self._row = (ever.cumsum(0) - 1).clamp_min_(0)
        flat = logits.flatten(1)
        self._logits = flat if len(self.names) == len(flat) else flat.index_select(0, self.names)
        self._winner = winner.flatten()
        around = wins[:-1] | wins[1:] if z.between else wins
        self._absent = ~around[:, self.names].t()

    def label(self, tiles: Tiles, labels: Tensor) -> None:
        """Write the labels of the target voxels into ``[z, y, x]``."""
        rest = tiles.select(self._settle_pairs(tiles, labels))
        for part, below in self._below(rest):
            _put(_winner(below, self.names), part, labels)

    def raise_entropy(self, tiles: Tiles, percent: Tensor) -> None:
        """At least that of the target voxels' logits."""
        for part, below in self._below(tiles):
            unsure = entropy_percent(below, self._classes).round_().to(torch.uint8)
            percent.view(-1).scatter_reduce_(0, part.places().flatten(), unsure, "amax")

    def _settle_pairs(self, tiles: Tiles, labels: Tensor) -> Tensor:
        """Write the lowest or the highest label around each cell; say in which cells a third one could win.

        A logit that is nowhere around a cell above the mean of those two is nowhere in the cell above both of them. Of
        three that are equal to the last bit it is one of the two.
        """
        corners = tiles.corners()
        around = self._winner.gather(0, corners.flatten()).view(corners.shape)
        low, high = around.amin(dim=0), around.amax(dim=0)
        logits, rows = self._at(corners), [self._row.gather(0, label.long()) for label in (low, high)]
        first, second = (logits.gather(0, row.expand(1, *corners.shape)).squeeze(0) for row in rows)
        above = logits.sub_(torch.lerp(first, second, 0.5)).amax(dim=1)
        above.masked_fill_(self._absent_from(tiles), 0)
        for row in rows:
            above.scatter_(0, row[None], 0)
        behind = tiles.interpolate(first - second).view(torch.int32) >> 31  # the sign in every bit: -1, or 0
        _put(behind.to(torch.uint8).bitwise_and_(low ^ high).bitwise_xor_(low), tiles, labels)
        return (above.amax(dim=0) > 0).nonzero().squeeze(1)

    def _below(self, tiles: Tiles) -> Iterator[tuple[Tiles, Tensor]]:
        """Of a few cells at a time all logits less the largest of each target voxel, ``[names, z * y * x * N]``."""
        for part in tiles.split(_limit(BORDER_VALUES, self._logits.device) // len(self.names)):
            logits = self._at(part.corners()).masked_fill_(self._absent_from(part)[:, None], NOWHERE)
            between = part.interpolate(logits).flatten(1)
            yield part, between - between.amax(dim=0)

    def _at(self, places: Tensor) -> Tensor:
        """Logits ``[names, *]`` at places ``[*]`` in the flat source."""
        return self._logits.gather(1, places.flatten().expand(len(self._logits), -1)).view(-1, *places.shape)

    def _absent_from(self, tiles: Tiles) -> Tensor:
        """Which labels win in no slice around the cells, ``[names, N]``."""
        return self._absent.gather(1, tiles.cells[0].expand(len(self.names), -1))


def _put(values: Tensor, tiles: Tiles, labels: Tensor) -> None:
    """Write the values of target voxels."""
    labels.view(-1).scatter_(0, tiles.places().flatten(), values.flatten())


def _winner(below: Tensor, names: Tensor) -> Tensor:
    """Of K ascending ``names`` that of the largest, which is 0 of ``[K, M]`` while the others are less; uint8.

    The first where several are 0, as ``torch.max`` finds it with its indices in several times as long. Where a logit is
    no finite number it is any of the names, or 0. In the memory of ``below``, whose numbers are lost: they are in the
    processor's caches, and new memory would not be.
    """
    lost = below.view(torch.int32).bitwise_right_shift_(31)  # the sign in every bit: -1, or 0
    return (255 - lost.bitwise_or_((255 - names.int())[:, None]).amax(dim=0)).to(torch.uint8)


def _cells(winner: Tensor, axes: Axes) -> Tensor:
    """For each cell between source voxels, labels ``[z, y, x]``: that of all its corners, or ``MIXED``."""
    lowest, highest = winner, winner
    for dim, axis in enumerate(axes):
        if axis.between:
            lowest = torch.minimum(lowest.narrow(dim, 0, axis.cells), lowest.narrow(dim, 1, axis.cells))
            highest = torch.maximum(highest.narrow(dim, 0, axis.cells), highest.narrow(dim, 1, axis.cells))
    return torch.where(lowest == highest, lowest, MIXED)


def _limit(limits: dict[str, int], device: torch.device) -> int:
    return limits["cuda" if device.type == "cuda" else "cpu"]
