"""From logits on the prepared grid to labels on the image's own, without ever holding full-size logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mskd.errors import Cancelled
from mskd.events import CancelCheck
from mskd.image.geometry import LabelMap
from mskd.inference.grid import Grid
from mskd.inference.neighbours import Axis, Plane, make_axis
from mskd.inference.region import Region
from mskd.inference.uncertainty import Confidence, entropy_percent
from mskd.inference.windows import Shape, divided

SLAB_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}
"""Logits of a slab, in float32."""

SLAB_VOXELS = {"cpu": 16 << 20, "cuda": 64 << 20}
"""Target voxels of a slab."""

SPOT_VALUES = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Logits that a thread interpolates along borders at a time: few enough for a processor's caches."""

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
    interpolation; only the others, along borders, are interpolated. A label that wins at no voxel of the two prepared
    slices around a slice is not looked for in it.

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
        cancelled: Asked every few slices.

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
        found, percent = slab.restore(portion.z, portion.plane, entropy is not None)
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
        z: From target slices to those.
        plane: From target to source voxels within a slice.
        fresh: The first source slice that no portion before had.
    """

    rows: slice
    logits: Tensor
    z: Axis
    plane: Plane
    fresh: int


def _portions(slabs: Iterable[Tensor], grid: Grid, step: Shape) -> Iterator[_Portion]:
    """Target slices in order, a few at a time, as soon as the source slices around them are there."""
    depth, first, top, told = grid.crop_shape[0], 0, 0, 0
    shape = divided(grid.geometry.shape, step)
    held: Tensor | None = None
    axes: tuple[Axis, Plane] | None = None
    for slab in slabs:
        # Apple's GPUs lack operations that are used here.
        slab = slab.cpu() if slab.device.type == "mps" else slab
        held = slab if held is None else torch.cat([held, slab], dim=1)
        z, plane = axes = axes or _axes(shape, grid, step, held.device)
        rows, ready = _slab_rows(shape, held, grid.crop_shape), z.ready(top + held.shape[1])
        for begin in range(first, ready, rows):
            end = min(ready, begin + rows)
            part, start, stop = z.part(begin, end)
            yield _Portion(slice(begin, end), held[:, start - top : stop - top], part, plane, max(0, told - start))
            told = stop
        first = ready
        bottom = int(z.lower[ready]) if ready < depth else top + held.shape[1]
        # A copy: a view would keep the whole slab.
        held, top = held[:, bottom - top :].clone(), bottom
        del slab


def _axes(shape: Shape, grid: Grid, step: Shape, device: torch.device) -> tuple[Axis, Plane]:
    """From target to source voxels: between slices, and within one."""
    sides = zip(shape, grid.crop_shape, grid.geometry.shape, step, strict=True)
    z, y, x = (make_axis(source, target, device, full / one) for source, target, full, one in sides)
    return z, Plane(y, x)


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
        probability = torch.empty_like(slices, dtype=torch.float32)
        for z, winner in enumerate(slices):
            below = self._below(z)
            if confidence is not None and z >= fresh:
                # Of the winner, exp(0) is left over the sum.
                torch.reciprocal(below.exp().sum(dim=0), out=probability[z])
            winner.copy_(_winner(below, names))
        if confidence is not None:
            confidence.add(probability[fresh:], slices[fresh:])
        places = slices.long() + len(names) * torch.arange(len(slices), device=logits.device)[:, None]
        # Whether a label wins somewhere in a slice, ``[z, K]``.
        self.wins = places.flatten().bincount(minlength=len(slices) * len(names)).view(len(slices), -1) > 0

    def restore(self, z: Axis, plane: Plane, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
        """Labels of the target slices of ``z``, and entropy where it is wanted."""
        cells = _cells(self.winner, (z, plane.y, plane.x))
        for dim, axis in ((2, plane.x), (1, plane.y)):
            cells = cells.index_select(dim, axis.lower)
        lower, classes = z.lower.tolist(), len(self.logits)
        labels = cells.new_empty(len(lower), *cells.shape[1:])
        percent = self._entropy(z, plane) if with_entropy else None
        # Target slices between the same two source slices have their borders at the same places.
        for cell, group in groupby(range(len(lower)), key=lower.__getitem__):
            members = list(group)
            rows, around = slice(members[0], members[-1] + 1), slice(cell, cell + 1 + z.between)
            labels[rows] = cells[cell]
            names = self.wins[around].any(dim=0).nonzero().squeeze(1)
            if len(names) == 1:
                continue
            source = torch.stack([self.logits[name, around] for name in names.tolist()], dim=1)
            most = _limit(SPOT_VALUES, source.device) // (len(names) * (len(source) + len(members)))
            for spots in plane.spots(cells[cell] == MIXED, max(1, most)):
                below = _between(spots.values(source), z.share[rows, None, None])
                below -= below.amax(dim=-2, keepdim=True)
                if percent is not None:
                    spots.raise_to(entropy_percent(below, classes).round_().to(torch.uint8), percent[rows])
                spots.put(_winner(below, names), labels[rows])
        return labels, percent

    def _below(self, z: int) -> Tensor:
        """Logits ``[K, y * x]`` of a slice less the largest of each voxel."""
        logits = self.logits[:, z].flatten(1)
        return logits - logits.amax(dim=0)

    def _entropy(self, z: Axis, plane: Plane) -> Tensor:
        """Entropy of the logits' voxels in percent, interpolated linearly: final except along borders."""
        slices = [entropy_percent(self._below(index), len(self.logits)) for index in range(len(self.winner))]
        source = torch.stack(slices).view(self.winner.shape)
        found = self.winner.new_empty(len(z.lower), len(plane.y.lower), len(plane.x.lower))
        for row, (cell, share) in enumerate(zip(z.lower.tolist(), z.share.tolist(), strict=True)):
            found[row] = plane.interpolate(_between(source[cell : cell + 1 + z.between], share)[0]).round_()
        return found


def _winner(below: Tensor, names: Tensor) -> Tensor:
    """Of K ascending ``names`` that of the largest, which is 0 of ``[..., K, M]`` while the others are less; uint8.

    The first where several are 0, as ``torch.max`` finds it with its indices in several times as long. Where a logit is
    no finite number it is any of the names, or 0. In the memory of ``below``, whose numbers are lost: they are in the
    processor's caches, and new memory would not be.
    """
    lost = below.view(torch.int32).bitwise_right_shift_(31)  # the sign in every bit: -1, or 0
    return (255 - lost.bitwise_or_((255 - names.int())[:, None]).amax(dim=-2)).to(torch.uint8)


def _between(slices: Tensor, share: Tensor | float) -> Tensor:
    """Between the slices of ``[..., 1 or 2, *, *]``, the second of which has this share; one counts alone."""
    lower, upper = slices[..., :1, :, :], slices[..., 1:, :, :]
    return torch.lerp(lower, upper, share) if upper.shape[-3] else lower


def _cells(winner: Tensor, axes: tuple[Axis, Axis, Axis]) -> Tensor:
    """For each cell between source voxels, labels ``[z, y, x]``: that of all its corners, or ``MIXED``."""
    lowest, highest = winner, winner
    for dim, axis in enumerate(axes):
        if axis.between:
            lowest = torch.minimum(lowest.narrow(dim, 0, axis.cells), lowest.narrow(dim, 1, axis.cells))
            highest = torch.maximum(highest.narrow(dim, 0, axis.cells), highest.narrow(dim, 1, axis.cells))
    return torch.where(lowest == highest, lowest, MIXED)


def _limit(limits: dict[str, int], device: torch.device) -> int:
    return limits["cuda" if device.type == "cuda" else "cpu"]
