"""Where a U-Net halves which axis, and which kernels see which axis: nnU-Net's rules for unequal spacings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SMALLEST_SIDE = 4
"""Voxels that the coarsest resolution keeps along an axis."""
Steps = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Topology:
    """Strides and kernels of each resolution, finest first, and the multiples that a patch is made of."""

    strides: Steps
    kernels: Steps

    @property
    def divisor(self) -> tuple[int, ...]:
        divisor = [1] * len(self.strides[0])
        for step in self.strides:
            divisor = [side * stride for side, stride in zip(divisor, step, strict=True)]
        return tuple(divisor)


def make_topology(spacing: Sequence[float], patch: Sequence[int], stages: int) -> Topology:
    """Halve the axes whose voxels are still within a factor of 2 of the finest, while enough voxels are left.

    A kernel looks along an axis (3 instead of 1) from the resolution on where its voxels are less than twice as long as
    the finest ones: across slices of 8 mm, neighbours of 1 mm voxels have little to say.

    Args:
        spacing: mm along each axis of the patch.
        stages: Most resolutions.
    """
    steps, sizes = list(spacing), list(patch)
    strides, kernels = [(1,) * len(steps)], [_kernel((1,) * len(steps), steps)]
    while len(strides) < stages:
        able = [size >= 2 * SMALLEST_SIDE for size in sizes]
        finest = min((step for step, may in zip(steps, able, strict=True) if may), default=0.0)
        stride = tuple(2 if may and step < 2 * finest else 1 for step, may in zip(steps, able, strict=True))
        halved = [size for size, by in zip(sizes, stride, strict=True) if by == 2]
        if not halved or (len(halved) == 1 and halved[0] < 3 * SMALLEST_SIDE):
            break
        sizes = [-(-size // by) for size, by in zip(sizes, stride, strict=True)]
        steps = [step * by for step, by in zip(steps, stride, strict=True)]
        strides.append(stride)
        kernels.append(_kernel(kernels[-1], steps))
    if len(strides) == 1:  # a U-Net has two resolutions
        strides.append(tuple(2 if size > 1 else 1 for size in sizes))
        kernels.append(kernels[-1])
    return Topology(tuple(strides), tuple(kernels))


def _kernel(before: Sequence[int], steps: Sequence[float]) -> tuple[int, ...]:
    near = [step < 2 * min(steps) for step in steps]
    return tuple(3 if side == 3 or close else 1 for side, close in zip(before, near, strict=True))


def choose_patch(
    spacing: Sequence[float],
    shape: Sequence[int],
    stages: int,
    fits: Callable[[tuple[int, ...], Topology], bool],
) -> tuple[int, ...]:
    """The largest patch in the proportions of the median case that still fits, in multiples of the network's divisor.

    Starts from a cube (in mm) of far too many voxels, clipped to the case, and takes voxels from the axis of which the
    patch shows the largest share.
    """
    voxels = 256**3 if len(spacing) == 3 else 2048**2
    unit = 1.0
    for step in spacing:
        unit *= step
    edge = (voxels * unit) ** (1 / len(spacing))
    patch = [max(1, min(round(edge / step), side)) for step, side in zip(spacing, shape, strict=True)]
    patch = _whole(patch, make_topology(spacing, patch, stages))
    while not fits(tuple(patch), make_topology(spacing, patch, stages)):
        order = sorted(range(len(patch)), key=lambda axis: -patch[axis] / shape[axis])
        axis = next((axis for axis in order if patch[axis] > 2 * SMALLEST_SIDE), None)
        if axis is None:
            break
        patch[axis] -= 1
        topology = make_topology(spacing, patch, stages)
        patch[axis] -= patch[axis] % topology.divisor[axis]
        patch = _whole(patch, topology)
    return tuple(patch)


def _whole(patch: Sequence[int], topology: Topology) -> list[int]:
    return [-(-side // step) * step for side, step in zip(patch, topology.divisor, strict=True)]
