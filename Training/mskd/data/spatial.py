"""Where the voxels of a training patch come from: rotation, zoom, elastic deformation, mirroring, drawn as numbers."""

from __future__ import annotations

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

    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray
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
    rotation, zoom = np.eye(dim), np.eye(dim)
    for place, first in enumerate(thin):
        for second in thin[place + 1 :]:
            angle = np.deg2rad(rng.uniform(-degrees, degrees))
            plane = np.eye(dim)
            plane[[first, second], [first, second]] = np.cos(angle)
            plane[first, second], plane[second, first] = -np.sin(angle), np.sin(angle)
            rotation = rotation @ plane
    zoom[thin, thin] = 1 / either_side_of_one(rng, *scale)
    millimetres = np.diag(spacing)
    return np.linalg.inv(millimetres) @ rotation @ millimetres @ zoom


def either_side_of_one(rng: np.random.Generator, low: float, high: float) -> float:
    """A factor that shrinks as often as it enlarges, uniform on either side."""
    return rng.uniform(low, min(high, 1)) if rng.random() < 0.5 and low < 1 else rng.uniform(max(low, 1), max(high, 1))


def random_displacement(rng: np.random.Generator, spacing: Sequence[float], largest: float) -> np.ndarray:
    """Control points of a smooth field along the thin axes, each at most ``largest`` voxels of the finest away."""
    reach = np.where(np.isin(range(len(spacing)), thin_axes(spacing)), largest * min(spacing) / np.asarray(spacing), 0)
    return np.stack([rng.uniform(-side, side, (ELASTIC_GRID,) * len(spacing)) for side in reach]).astype(np.float32)


def place(
    centre: np.ndarray,
    patch: Sequence[int],
    size: Sequence[int],
    matrix: np.ndarray,
    displacement: np.ndarray | None,
    flips: tuple[int, ...],
) -> Placement:
    """The smallest box of a volume of this ``size`` that holds all that the patch around ``centre`` is made of.

    Outside the volume one voxel of padding is enough for the box, since everything beyond is the same.
    """
    half = (np.asarray(patch) - 1) / 2
    if displacement is None and np.array_equal(matrix, np.eye(len(patch))):
        low = np.round(centre - half).astype(int)
        return Placement(low, low + np.asarray(patch), half, None, None, flips)
    mirror = np.ones(len(patch))
    mirror[list(flips)] = -1
    along = (matrix == np.eye(len(patch))).all(1)  # voxel by voxel along a thick axis: none are mixed
    centre = np.where(along, np.round(centre - half) + half, centre)
    reach = np.abs(matrix) @ half
    if displacement is not None:
        reach = reach + np.abs(displacement).reshape(len(patch), -1).max(1)
        displacement = np.flip(displacement, flips).copy() if flips else displacement
    low = np.clip(np.floor(centre - reach).astype(int), -1, np.asarray(size) - 1)
    high = np.clip(np.floor(centre + reach).astype(int) + 2, low + 2, np.asarray(size) + 1)
    return Placement(low, high, centre - low, matrix * mirror, displacement)


def cut(array: np.ndarray, low: np.ndarray, high: np.ndarray, outside: float = 0) -> Tensor:
    """The box ``[low, high)`` of ``[..., *spatial]`` as a tensor of its own, ``outside`` beyond the volume."""
    size = array.shape[-len(low) :]
    first, last = np.clip(low, 0, size), np.clip(high, 0, size)
    inside = array[_box(first, last)]
    if np.array_equal(first, low) and np.array_equal(last, high):
        return torch.from_numpy(np.array(inside))
    result = np.full((*array.shape[: -len(low)], *(high - low)), outside, array.dtype)
    result[_box(first - low, last - low)] = inside
    return torch.from_numpy(result)


def _box(low: np.ndarray, high: np.ndarray) -> tuple[Any, ...]:
    return (..., *(slice(first, last) for first, last in zip(low, high, strict=True)))


class Coordinates:
    """Voxel coordinates in the box for every voxel of the patch, plane by plane of its first axis."""

    def __init__(self, placement: Placement, patch: Sequence[int], device: torch.device) -> None:
        assert placement.matrix is not None
        self.limits = [
            float(np.nextafter(np.float32(side - 1), np.float32(0))) for side in placement.high - placement.low
        ]
        offsets = [torch.arange(side, device=device) - (side - 1) / 2 for side in patch]
        matrix, centre = placement.matrix.tolist(), placement.centre.tolist()
        self.terms = [[row[k] * offset for k, offset in enumerate(offsets)] for row in matrix]
        for terms, middle in zip(self.terms, centre, strict=True):
            terms[0] += middle
        self.shift: Tensor | None = None
        if placement.displacement is not None:
            mode = "bilinear" if len(patch) == 2 else "trilinear"
            control = torch.from_numpy(placement.displacement).to(device)[None]
            self.shift = F.interpolate(control, size=tuple(patch), mode=mode, align_corners=True)[0]

    def __call__(self, planes: slice) -> list[Tensor]:
        """One tensor ``[planes, ...]`` an axis, kept within the box: everything beyond its rim equals the rim."""
        found = []
        for axis, (first, *others) in enumerate(self.terms):
            total = first[planes].reshape(-1, *(1,) * len(others))
            for index, term in enumerate(others):
                total = total + term.reshape(-1, *(1,) * (len(others) - index - 1))
            if self.shift is not None:
                total += self.shift[axis, planes]
            found.append(total.clamp_(0, self.limits[axis]))
        return found
