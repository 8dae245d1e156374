"""One linear interpolation from a box of the volume to a patch, for images, logits and labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mskd.data.spatial import Coordinates, Placement

SLAB = 1 << 17
"""Voxels computed at a time on a CPU: few enough to stay in its cache."""
GROUP = 4
"""Channels interpolated at a time: more would need coordinates too large for float32."""


def warp(
    image: Tensor, labels: Tensor | None, logits: Tensor | None, placement: Placement, patch: Sequence[int]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Bring the contents of a box to the patch.

    Args:
        image: ``[C, *box]`` float32, interpolated linearly.
        labels: ``[*box]`` uint8 or None; each value is interpolated linearly and the largest share wins.
        logits: ``[K, *box]`` float16 or None, interpolated linearly in float32.

    Returns:
        The same with ``patch`` in place of ``box``; logits in float32.
    """
    coordinates = Coordinates(placement, patch, image.device)
    moved = image.new_empty((len(image), *patch))
    jobs = [(_Grid(image[group]), moved[group]) for group in _groups(len(image))]
    taught = None if logits is None else moved.new_empty((len(logits), *patch))
    if logits is not None and taught is not None:
        jobs += [(_Grid(logits[group].float()), taught[group]) for group in _groups(len(logits))]
    voter = None if labels is None else _Voter(labels, patch)
    for planes in slabs(patch, image.device):
        where = coordinates(planes)
        for grid, result in jobs:
            grid(where, result[:, planes])
        if voter is not None:
            voter.look(where, planes)
    return moved, None if voter is None else voter.vote(), taught


def _groups(channels: int) -> list[slice]:
    return [slice(first, first + GROUP) for first in range(0, channels, GROUP)]


def slabs(patch: Sequence[int], device: torch.device) -> Iterator[slice]:
    """The planes of the patch's first axis, as many at a time as the device likes."""
    planes = max(1, SLAB // math.prod(patch[1:])) if device.type == "cpu" else patch[0]
    return (slice(first, min(first + planes, patch[0])) for first in range(0, patch[0], planes))


def as_pictures(source: Tensor) -> bool:
    """Whether ``[C, *box]`` is better interpolated as a picture: a volume on a CPU."""
    return source.ndim == 4 and source.device.type == "cpu"


class _Grid:
    """Linear interpolation of ``[C, *box]``; every side of the box is at least 2.

    PyTorch's interpolation of volumes takes one voxel at a time on a CPU, that of pictures eight. So there a volume
    is laid out as one large picture, a mosaic of its slices, twice a channel: the second time one slice further on.
    What both give is then interpolated along z.
    """

    def __init__(self, source: Tensor) -> None:
        self.channels, *self.box = source.shape
        self.mosaic = as_pictures(source)
        if not self.mosaic:
            self.source = source[None]
            return
        depth, height, width = self.box
        # float32 coordinates are exact to 1e-4 voxels where neither side of the picture is much above 2000
        self.across = 1 << max(0, round(math.log2(math.sqrt(depth * height / (self.channels * width)))))
        down = -(-(depth - 1) // self.across)
        tiles = source.new_empty((down, height, self.across + 1, self.channels, width))
        for row in range(down):
            slices = source[:, row * self.across : row * self.across + self.across + 1]
            tiles[row, :, : slices.shape[1]] = slices.permute(2, 1, 0, 3)
            tiles[row, :, slices.shape[1] :] = 0
        self.size = (down * height, ((self.across - 1) * self.channels + 1) * width)
        strides = ((self.across + 1) * self.channels * width, 1)
        self.source = tiles.as_strided((1, 2 * self.channels, *self.size), (0, width, *strides))

    def __call__(self, where: list[Tensor], result: Tensor) -> None:
        """Write the values ``[C, ...]`` at these coordinates to ``result``."""
        if not self.mosaic:
            result.copy_(F.grid_sample(self.source, _grid_of(where, self.box), align_corners=True)[0])
            return
        z, y, x = where
        below = z.floor()
        down = (below * (1 / self.across)).floor_()
        across = torch.sub(below, down, alpha=self.across)
        row = torch.add(y, down, alpha=self.box[1])
        column = torch.add(x, across, alpha=self.channels * self.box[2])
        grid = _grid_of([row.flatten(0, 1), column.flatten(0, 1)], self.size)
        pair = F.grid_sample(self.source, grid, align_corners=True)
        first, second = pair.view(2, self.channels, *z.shape)
        torch.lerp(first, second, z - below, out=result)


def _grid_of(where: Sequence[Tensor], sides: Sequence[int]) -> Tensor:
    """Coordinates as ``grid_sample`` wants them: the last axis first, voxels 0 to side - 1 counted from -1 to 1."""
    grid = where[0].new_empty((1, len(sides), *where[0].shape))
    start = grid.new_tensor(-1.0)
    for place, (axis, side) in enumerate(zip(reversed(where), reversed(sides), strict=True)):
        torch.add(start, axis, alpha=2 / (side - 1), out=grid[0, place])
    return grid.movedim(1, -1)


class _Voter:
    """The label with the largest share of a linear interpolation of all labels ``[*box]``.

    Most cells between eight voxels (in 2D four) hold one label only, and there is nothing to weigh in them. In the
    others the corners vote with their weights, however many labels there are.
    """

    def __init__(self, labels: Tensor, patch: Sequence[int]) -> None:
        labels = labels.contiguous()
        self.strides, self.labels = labels.stride(), labels.flatten()
        differ = self.labels[:-1] ^ self.labels[1:]  # not zero where the cell that begins at a voxel is mixed
        for stride in self.strides[-2::-1]:
            differ = differ[:-stride] | differ[stride:]
            differ |= self.labels[: len(differ)] ^ self.labels[stride : stride + len(differ)]
        self.differ = differ
        self.found = labels.new_empty(tuple(patch))
        self.undecided: list[tuple[Tensor, ...]] = []

    def look(self, where: list[Tensor], planes: slice) -> None:
        """Take down the labels at these coordinates, and what is to be voted on."""
        cell = [axis.int() for axis in where]
        first = cell[-1].flatten()
        for axis, stride in zip(cell[:-1], self.strides, strict=False):
            first = first.add(axis.flatten(), alpha=stride)
        part = self.found[planes].view(-1)
        torch.index_select(self.labels, 0, first, out=part)
        voters = self.differ.index_select(0, first).nonzero()[:, 0]
        shares = [axis.flatten().index_select(0, voters).frac_() for axis in where]
        before = planes.start * self.found.stride(0)
        self.undecided.append((voters + before, first.index_select(0, voters), *shares))

    def vote(self) -> Tensor:
        """Labels uint8 ``[*patch]``."""
        voters, first, *parts = (torch.cat(tensors) for tensors in zip(*self.undecided, strict=True))
        if len(voters):
            self.found.view(-1)[voters] = self._winners(first, parts)
        return self.found

    def _winners(self, first: Tensor, parts: list[Tensor]) -> Tensor:
        weights, corners = torch.ones_like(parts[0])[None], first[None]
        for part, stride in zip(parts, self.strides, strict=True):
            weights = torch.cat([weights * (1 - part), weights * part])
            corners = torch.cat([corners, corners + stride])
        labels = self.labels.index_select(0, corners.flatten()).view(corners.shape)
        low, high = labels.amin(0), labels.amax(0)
        for_low, for_high = ((weights * (labels == value)).sum(0) for value in (low, high))
        winner = torch.where(for_high > for_low, high, low)
        several = (torch.maximum(for_low, for_high) < 0.5).nonzero()[:, 0]  # a third label may have more
        if len(several):
            labels, weights = labels[:, several], weights[:, several]
            votes = (weights * (labels == labels[:, None])).sum(1)
            winner[several] = labels.gather(0, votes.argmax(0)[None])[0]
        return winner
