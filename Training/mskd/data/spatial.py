"""Where the voxels of a training patch come from: rotation, zoom, elastic deformation, mirroring, drawn as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ELASTIC_GRID = 6
THICK = 3.0
"""An axis whose voxels are more than this many times the smallest side is left as it is, as nnU-Net does: rotating
across thick slices would mix voxels far apart."""


@dataclass(frozen=True)
class Placement:
    """A box of the volume, and how the patch lies in it.

    Args:
        low, high: The box ``[low, high)`` in voxels of the volume; it may reach outside.
        centre: Where the middle of the patch lies, in voxels of the box.
        matrix: ``[dim, dim]``: the patch voxel at offset ``o`` from its middle comes from ``centre + matrix @ o``,
            mirroring included. None where the box is the patch itself, before ``flips``.
        displacement: Added to it, in voxels: control points ``[dim, *(6,) * dim]``, linear between them, or None.
        flips: Axes, -dim to -1, along which the box is mirrored to give the patch; empty where there is a matrix.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    centre: tuple[float, ...]
    matrix: np.ndarray | None
    displacement: np.ndarray | None = None
    flips: tuple[int, ...] = ()


def thin_axes(spacing: Sequence[float]) -> list[int]:
    """The axes along which voxels are fine enough to be rotated, zoomed and blurred."""
    return [axis for axis, side in enumerate(spacing) if side <= THICK * min(spacing)]


def random_matrix(
    rng: np.random.Generator, spacing: Sequence[float], degrees: float, scale: tuple[float, float]
) -> np.ndarray:
    """A random rotation and isotropic zoom in mm of the thin axes, expressed in voxels: ``[dim, dim]``.

    Args:
        spacing: mm per voxel along each axis; with unequal spacing a voxel rotation alone would shear the anatomy.
    """
    dim, thin = len(spacing), thin_axes(spacing)
    matrix = np.eye(dim)
    for place, first in enumerate(thin):
        for second in thin[place + 1 :]:
            angle = math.radians(rng.uniform(-degrees, degrees))
            plane = np.eye(dim)
            plane[first, first] = plane[second, second] = math.cos(angle)
            plane[first, second], plane[second, first] = -math.sin(angle), math.sin(angle)
            matrix = matrix @ plane
    matrix[:, thin] /= either_side_of_one(rng, *scale)
    return matrix * np.divide.outer(np.reciprocal(spacing), np.reciprocal(spacing))


def either_side_of_one(rng: np.random.Generator, low: float, high: float) -> float:
    """A factor that shrinks as often as it enlarges, uniform on either side."""
    return rng.uniform(low, min(high, 1)) if rng.random() < 0.5 and low < 1 else rng.uniform(max(low, 1), max(high, 1))


def random_displacement(rng: np.random.Generator, spacing: Sequence[float], largest: float) -> np.ndarray:
    """Control points of a smooth field along the thin axes, each at most ``largest`` voxels of the finest away."""
    thin, shape = thin_axes(spacing), (ELASTIC_GRID,) * len(spacing)
    reach = [largest * min(spacing) / side if axis in thin else 0.0 for axis, side in enumerate(spacing)]
    return np.stack([rng.uniform(-side, side, shape) for side in reach]).astype(np.float32)


def place(
    centre: Sequence[float],
    patch: Sequence[int],
    size: Sequence[int],
    matrix: np.ndarray | None,
    displacement: np.ndarray | None,
    flips: tuple[int, ...],
) -> Placement:
    """The smallest box of a volume of this ``size`` that holds all that the patch around ``centre`` is made of.

    Outside the volume one voxel of padding is enough for the box, since everything beyond is the same.
    """
    dim = len(patch)
    half = [(side - 1) / 2 for side in patch]
    starts = [round(middle - reach) for middle, reach in zip(centre, half, strict=True)]
    if matrix is None:
        ends = [start + side for start, side in zip(starts, patch, strict=True)]
        return Placement(tuple(starts), tuple(ends), tuple(half), None, None, flips)
    rows = np.abs(matrix)
    far = (rows @ half).tolist()
    if displacement is not None:
        far = [reach + float(np.abs(control).max()) for reach, control in zip(far, displacement, strict=True)]
        displacement = np.flip(displacement, flips).copy()
    low, high, middles = [], [], []
    for axis, side in enumerate(size):
        # along a thick axis patch voxels lie on voxels, so that no slices are mixed
        whole = matrix[axis, axis] == 1 and rows[axis].sum() == 1
        middle = starts[axis] + half[axis] if whole else centre[axis]
        low.append(min(max(math.floor(middle - far[axis]), -1), side - 1))
        high.append(max(min(math.floor(middle + far[axis]) + 2, side + 1), low[axis] + 2))
        middles.append(middle - low[axis])
    mirror = [-1.0 if axis - dim in flips else 1.0 for axis in range(dim)]
    return Placement(tuple(low), tuple(high), tuple(middles), matrix * mirror, displacement)


def cut(array: np.ndarray, low: Sequence[int], high: Sequence[int], outside: float = 0) -> Tensor:
    """The box ``[low, high)`` of ``[..., *spatial]``, ``outside`` beyond the volume.

    A file is read; of an array in memory it is a view, which nobody may write to.
    """
    size = array.shape[-len(low) :]
    first = [min(max(start, 0), side) for start, side in zip(low, size, strict=True)]
    last = [min(max(end, 0), side) for end, side in zip(high, size, strict=True)]
    inside = array[_box(first, last)]
    if first == list(low) and last == list(high):
        in_memory = inside.flags.writeable and not isinstance(inside, np.memmap)
        return torch.from_numpy(inside if in_memory else np.array(inside))
    box = [end - start for start, end in zip(low, high, strict=True)]
    result = np.full((*array.shape[: -len(low)], *box), outside, array.dtype)
    result[_box([a - b for a, b in zip(first, low, strict=True)], [a - b for a, b in zip(last, low, strict=True)])] = (
        inside
    )
    return torch.from_numpy(result)


def _box(low: Sequence[int], high: Sequence[int]) -> tuple[Any, ...]:
    return (..., *(slice(first, last) for first, last in zip(low, high, strict=True)))


class Coordinates:
    """Voxel coordinates in the box for every voxel of the patch, plane by plane of its first axis."""

    def __init__(self, placement: Placement, patch: Sequence[int], device: torch.device) -> None:
        assert placement.matrix is not None
        box = [end - start for start, end in zip(placement.low, placement.high, strict=True)]
        self.limits = [float(np.nextafter(np.float32(side - 1), np.float32(0))) for side in box]
        terms = [
            np.multiply.outer(column, np.arange(side) - (side - 1) / 2)
            for column, side in zip(placement.matrix.T, patch, strict=True)
        ]
        terms[0] += np.asarray(placement.centre)[:, None]
        self.terms = [torch.from_numpy(term.astype(np.float32)).to(device) for term in terms]
        self.shift: Tensor | None = None
        if placement.displacement is not None:
            mode = "bilinear" if len(patch) == 2 else "trilinear"
            control = torch.from_numpy(placement.displacement).to(device)[None]
            self.shift = F.interpolate(control, size=tuple(patch), mode=mode, align_corners=True)[0]

    def __call__(self, planes: slice) -> list[Tensor]:
        """One tensor ``[planes, ...]`` an axis, kept within the box: everything beyond its rim equals the rim."""
        found = []
        for axis, limit in enumerate(self.limits):
            total, *others = (term[axis] for term in self.terms)
            total = total[planes]
            for other in others:
                total = total.unsqueeze(-1) + other
            if self.shift is not None:
                total += self.shift[axis, planes]
            found.append(total.clamp_(0, limit))
        return found
