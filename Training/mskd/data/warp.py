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
    sources = [_Grid(group) for group in image.split(GROUP)]
    moved = image.new_empty((len(image), *patch))
    voter = None if labels is None else _Voter(labels)
    voted = None if labels is None else labels.new_empty(tuple(patch))
    teacher = [] if logits is None else [_Grid(group.float()) for group in logits.split(GROUP)]
    taught = None if logits is None else moved.new_empty((len(logits), *patch))
    for planes in slabs(patch, image.device):
        where = coordinates(planes)
        for index, source in enumerate(sources):
            moved[GROUP * index : GROUP * (index + 1), planes] = source(where)
        for index, source in enumerate(teacher):
            taught[GROUP * index : GROUP * (index + 1), planes] = source(where)  # type: ignore[index]
        if voter is not None and voted is not None:
            voted[planes] = voter(where)
    return moved, voted, taught


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

    def __call__(self, where: list[Tensor]) -> Tensor:
        """Values ``[C, ...]`` at these coordinates."""
        if not self.mosaic:
            sizes = reversed(self.box)
            scaled = [axis * (2 / (side - 1)) - 1 for axis, side in zip(reversed(where), sizes, strict=True)]
            return F.grid_sample(self.source, torch.stack(scaled, -1)[None], align_corners=True)[0]
        z, y, x = where
        below = z.floor()
        down = (below * (1 / self.across)).floor_()
        across = torch.sub(below, down, alpha=self.across)
        picture = z.new_empty((1, z.shape[0] * z.shape[1], z.shape[2], 2))
        column, row = picture.view(*z.shape, 2).unbind(-1)
        height, width = self.box[1:]
        torch.sub(torch.add(x, across, alpha=self.channels * width).mul_(2 / (self.size[1] - 1)), 1, out=column)
        torch.sub(torch.add(y, down, alpha=height).mul_(2 / (self.size[0] - 1)), 1, out=row)
        pair = F.grid_sample(self.source, picture, align_corners=True).view(2, self.channels, *z.shape)
        return torch.lerp(pair[0], pair[1], z - below)


class _Voter:
    """The label with the largest share of a linear interpolation of all labels ``[*box]``; ties go to the first corner.

    Most cells between eight voxels (in 2D four) hold one label only, and there is nothing to weigh in them. In the
    others the corners vote with their weights, however many labels there are.
    """

    MIXED = -1

    def __init__(self, labels: Tensor) -> None:
        self.strides = labels.stride()
        self.labels = labels.flatten()
        one, lower = torch.ones((), dtype=torch.bool, device=labels.device), labels
        for axis in reversed(range(labels.ndim)):
            size = labels.shape[axis] - 1
            one = one if one.ndim == 0 else one.narrow(axis, 0, size) & one.narrow(axis, 1, size)
            one = one & (lower.narrow(axis, 0, size) == lower.narrow(axis, 1, size))
            lower = lower.narrow(axis, 0, size)
        cells = labels.short()
        cells[tuple(slice(side - 1) for side in labels.shape)].masked_fill_(~one, self.MIXED)
        self.cells = cells.flatten()

    def __call__(self, where: list[Tensor]) -> Tensor:
        """Labels ``[...]`` uint8 at these coordinates."""
        corner = [axis.int() for axis in where]
        first = corner[-1].flatten()
        for axis, stride in zip(corner[:-1], self.strides, strict=False):
            first = first.add(axis.flatten(), alpha=stride)
        found = self.cells.index_select(0, first)
        voters = (found == self.MIXED).nonzero()[:, 0]
        found[voters] = self._vote(where, corner, first, voters)
        return found.reshape(where[0].shape).to(torch.uint8)

    def _vote(self, where: list[Tensor], corner: list[Tensor], first: Tensor, voters: Tensor) -> Tensor:
        first = first.index_select(0, voters)
        shares, offsets = [torch.ones_like(first, dtype=torch.float32)], [0]
        for axis, below, stride in zip(where, corner, self.strides, strict=True):
            upper = axis.flatten().index_select(0, voters) - below.flatten().index_select(0, voters)
            shares = [share * part for share in shares for part in (1 - upper, upper)]
            offsets = [offset + step for offset in offsets for step in (0, stride)]
        labels = [self.labels.index_select(0, first + offset) for offset in offsets]
        best, winner = torch.zeros_like(shares[0]), labels[0].short()
        for label in labels:
            votes = sum(share * (other == label) for share, other in zip(shares, labels, strict=True))
            better = votes > best
            best, winner = torch.where(better, votes, best), torch.where(better, label.short(), winner)
        return winner
