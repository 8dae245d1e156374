"""A volume in one piece or in overlapping windows, blended with Gaussian weights, from the first slice to the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, product
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from mskd.errors import Cancelled
from mskd.events import CancelCheck

Shape = tuple[int, int, int]
Forward = Callable[[Tensor], Tensor]
SIGMA = 0.125
"""Width of the Gaussian as a share of the window's side (nnU-Net, Isensee et al. 2021)."""


SLAB_SLICES = 16
"""Slices of blended logits that are handed on at a time."""


@dataclass(frozen=True)
class Plan:
    """Windows of one size over a volume.

    Args:
        shape: Voxels (z, y, x) of the prepared volume.
        window: Voxels (z, y, x) of a window, never more than ``shape``. A 2D network sees its z slices as a batch.
        starts: First voxel of each window, in order of z.
        batch: Windows that go through the network together.
        step: Voxels to one of the logits, along each axis; all of the above are multiples.
    """

    shape: Shape
    window: Shape
    starts: tuple[Shape, ...]
    batch: int = 1
    step: Shape = (1, 1, 1)

    @property
    def whole(self) -> bool:
        """Whether one window is the volume."""
        return self.window == self.shape

    @property
    def voxels(self) -> int:
        """Voxels that go through the network, those of overlaps each time: what the plan costs."""
        z, y, x = self.window
        return len(self.starts) * z * y * x

    def of_logits(self) -> Plan:
        """The same windows, counted in the logits' voxels."""
        starts = tuple(divided(start, self.step) for start in self.starts)
        return Plan(divided(self.shape, self.step), divided(self.window, self.step), starts, self.batch)


def make_plan(shape: Shape, window: Shape, overlap: Shape, batch: int = 1, step: Shape = (1, 1, 1)) -> Plan:
    """Evenly spread windows, neighbours of which share at least ``overlap`` voxels along each axis.

    All sides are rounded up to multiples of ``step``.
    """
    shape, overlap = divided(shape, step), divided(overlap, step)
    inside = smaller(divided(window, step), shape)
    z, y, x = (_starts(*axis) for axis in zip(shape, inside, overlap, strict=True))
    starts = tuple(times(start, step) for start in product(z, y, x))
    return Plan(times(shape, step), times(inside, step), starts, batch, step)


def divided(shape: Shape, step: Shape) -> Shape:
    """How many steps cover each side."""
    return -(-shape[0] // step[0]), -(-shape[1] // step[1]), -(-shape[2] // step[2])


def times(shape: Shape, step: Shape) -> Shape:
    """Each side in voxels where it counted steps."""
    return shape[0] * step[0], shape[1] * step[1], shape[2] * step[2]


def smaller(one: Shape, other: Shape) -> Shape:
    """The smaller side along each axis."""
    return min(one[0], other[0]), min(one[1], other[1]), min(one[2], other[2])


def fitted(volume: Tensor, plan: Plan) -> Tensor:
    """``volume`` ``[C, z, y, x]`` with its last voxels repeated until it is as large as the plan says."""
    z, y, x = (side - own for side, own in zip(plan.shape, volume.shape[1:], strict=True))
    return F.pad(volume, (0, x, 0, y, 0, z), mode="replicate") if z or y or x else volume


def half(window: Shape, dim: int) -> Shape:
    """The overlap that is usual: half of a window; z slices of a 2D network know nothing of each other."""
    return 0 if dim == 2 else window[0] // 2, window[1] // 2, window[2] // 2


def count_windows(side: int, window: int, overlap: int) -> int:
    """Windows that cover an axis of ``side`` voxels."""
    return ceil((side - window) / max(1, window - overlap)) + 1


def _starts(side: int, window: int, overlap: int) -> list[int]:
    count = count_windows(side, window, overlap)
    return [round(index * (side - window) / (count - 1)) for index in range(count)] if count > 1 else [0]


def importance(plan: Plan, device: torch.device) -> Tensor:
    """Weight ``[z, y, x]`` of a window's voxels: a Gaussian along every axis that has a seam, flat along others."""
    weight = torch.ones(1, 1, 1, device=device)
    for axis, (side, window) in enumerate(zip(plan.shape, plan.window, strict=True)):
        if side == window:
            continue
        offset = torch.arange(window, device=device, dtype=torch.float32) - (window - 1) / 2
        along = torch.exp(-0.5 * (offset / (SIGMA * window)) ** 2).clamp_min(1e-3)
        weight = weight * along.reshape([-1 if own == axis else 1 for own in range(3)])
    return weight.expand(plan.window)


def predict(
    forward: Forward,
    volume: Tensor,
    plan: Plan,
    dim: int,
    *,
    on_window: Callable[[int, int], None],
    cancelled: CancelCheck,
) -> Tensor:
    """All logits ``[K, z, y, x]`` at once; arguments and errors are those of :func:`stream`."""
    slabs = list(stream(forward, volume, plan, dim, on_window=on_window, cancelled=cancelled))
    return slabs[0] if len(slabs) == 1 else torch.cat(slabs, dim=1)


def stream(
    forward: Forward,
    volume: Tensor,
    plan: Plan,
    dim: int,
    *,
    air: float | None = None,
    on_window: Callable[[int, int], None],
    cancelled: CancelCheck,
) -> Iterator[Tensor]:
    """Logits ``[K, some z, y, x]`` of ``volume`` ``[C, z, y, x]``, slab by slab: each as soon as no window touches it.

    Only the slices of one row of windows are ever held. The sides of all slabs together are those of the volume,
    divided by ``plan.step``.

    Args:
        forward: From ``[N, C, *spatial]`` to logits ``[N, K, *spatial]``, their sides divided by ``plan.step``.
        volume: Prepared voxels on the device of ``forward``, as large as the plan says (see :func:`fitted`).
        plan: The windows.
        dim: 2 or 3, what ``forward`` takes.
        air: Windows without a voxel above this value are all alike: the network sees one of them.
        on_window: Told (done, total) before the first window and after each.
        cancelled: Asked before each batch of windows.

    Raises:
        Cancelled: ``cancelled`` said so.
    """
    total, done = len(plan.starts), 0
    seen = _Seen(forward, dim, air)
    blend: _Blend | None = None
    on_window(0, total)
    for top, row in groupby(plan.starts, key=lambda start: start[0]):
        if blend is not None:
            yield from blend.until(top // plan.step[0])
        for batch in _batches(list(row), plan.batch):
            if cancelled():
                raise Cancelled("The segmentation was cancelled; nothing was written.")
            results = seen([volume[_box(start, plan.window)] for start in batch])
            done += len(batch)
            on_window(done, total)
            if plan.whole:
                yield results[0]
                return
            blend = blend or _Blend(plan.of_logits(), results[0])
            for start, logits in zip(batch, results, strict=True):
                blend.add(divided(start, plan.step), logits)
    if blend is not None:
        yield from blend.until(plan.shape[0] // plan.step[0])


class _Seen:
    """The network on windows, a window of nothing but air only once."""

    def __init__(self, forward: Forward, dim: int, air: float | None) -> None:
        self._forward, self._dim, self._air = forward, dim, air
        self._of_air: Tensor | None = None

    def __call__(self, pieces: list[Tensor]) -> list[Tensor]:
        """Logits ``[K, z, y, x]`` of each piece ``[C, z, y, x]``."""
        if self._air is None:
            return self._run(pieces)
        empty = [not bool((piece > self._air).any()) for piece in pieces]
        if any(empty) and self._of_air is None:
            self._of_air = self._run([pieces[empty.index(True)]])[0]
        results = iter(self._run([piece for piece, none in zip(pieces, empty, strict=True) if not none]))
        return [self._of_air if none and self._of_air is not None else next(results) for none in empty]

    def _run(self, pieces: list[Tensor]) -> list[Tensor]:
        if self._dim == 2:
            return [self._forward(piece.transpose(0, 1)).transpose(0, 1) for piece in pieces]
        return list(self._forward(torch.stack(pieces))) if pieces else []


class _Blend:
    """Weighted sums of the slices that the current row of windows covers, in a ring: z lies at z modulo its depth."""

    def __init__(self, plan: Plan, like: Tensor) -> None:
        self._weight = importance(plan, like.device)
        self._depth = plan.window[0]
        self._top = 0
        rows = (self._depth, *plan.shape[1:])
        self._summed = like.new_zeros((len(like), *rows))
        self._weights = like.new_zeros(rows)

    def add(self, start: Shape, logits: Tensor) -> None:
        """Blend in a window of the current row."""
        _, height, width = self._weight.shape
        plane = (slice(start[1], start[1] + height), slice(start[2], start[2] + width))
        for ring, own in self._parts(self._depth):
            box, every = (ring, *plane), (slice(None), ring, *plane)
            self._summed[every].addcmul_(logits[:, own], self._weight[own])
            self._weights[box] += self._weight[own]

    def until(self, top: int) -> Iterator[Tensor]:
        """The logits of the slices before ``top``, where the next row begins, a few at a time."""
        while self._top < top:
            count = min(SLAB_SLICES, top - self._top)
            logits = self._summed.new_empty((len(self._summed), count, *self._summed.shape[2:]))
            for ring, own in self._parts(count):
                torch.div(self._summed[:, ring], self._weights[ring], out=logits[:, own])
                self._summed[:, ring] = 0
                self._weights[ring] = 0
            self._top += count
            yield logits
            del logits

    def _parts(self, count: int) -> Iterator[tuple[slice, slice]]:
        """The next ``count`` slices where they lie in the ring, and which of them those are."""
        first = self._top % self._depth
        before = min(count, self._depth - first)
        yield slice(first, first + before), slice(0, before)
        if count > before:
            yield slice(0, count - before), slice(before, count)


def _batches(windows: list[Shape], size: int) -> Iterator[list[Shape]]:
    return (windows[first : first + size] for first in range(0, len(windows), size))


def _box(start: Shape, window: Shape) -> tuple[slice, ...]:
    return (slice(None), *(slice(low, low + side) for low, side in zip(start, window, strict=True)))
