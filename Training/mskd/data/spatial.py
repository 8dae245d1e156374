"""One interpolation from a volume to a training patch: crop, rotation, scaling, mirroring, elastic deformation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ELASTIC_GRID = 6


def random_matrix(
    rng: np.random.Generator, spacing: Sequence[float], degrees: float, scale: tuple[float, float]
) -> np.ndarray:
    """A random rotation and isotropic zoom in mm, expressed in voxels: ``[dim, dim]``.

    Args:
        spacing: mm per voxel along each axis; with unequal spacing a voxel rotation alone would shear the anatomy.
    """
    dim = len(spacing)
    rotation = np.eye(dim)
    for first in range(dim):
        for second in range(first + 1, dim):
            angle = np.deg2rad(rng.uniform(-degrees, degrees))
            plane = np.eye(dim)
            plane[[first, second], [first, second]] = np.cos(angle)
            plane[first, second], plane[second, first] = -np.sin(angle), np.sin(angle)
            rotation = rotation @ plane
    low, high = scale
    zoom = rng.uniform(low, 1) if rng.random() < 0.5 and low < 1 else rng.uniform(max(low, 1), high)
    millimetres = np.diag(spacing)
    return np.linalg.inv(millimetres) @ rotation @ millimetres / zoom


def random_displacement(rng: np.random.Generator, patch: Sequence[int], largest: float) -> np.ndarray:
    """A smooth random displacement field in voxels, ``[dim, *patch]``, at most ``largest`` along each axis."""
    dim = len(patch)
    coarse = torch.from_numpy(rng.uniform(-largest, largest, (1, dim, *(ELASTIC_GRID,) * dim)).astype(np.float32))
    mode = "bilinear" if dim == 2 else "trilinear"
    return F.interpolate(coarse, size=tuple(patch), mode=mode, align_corners=True)[0].numpy()


def crop(array: Tensor, centre: np.ndarray, patch: Sequence[int]) -> Tensor:
    """The patch around ``centre`` (voxels) of ``[C, *spatial]``, zero outside the volume; no interpolation."""
    start = np.round(centre - (np.asarray(patch) - 1) / 2).astype(int)
    low = np.maximum(start, 0)
    high = np.minimum(start + patch, array.shape[1:])
    source = (slice(None), *(slice(a, max(a, b)) for a, b in zip(low, high, strict=True)))
    target = (slice(None), *(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True)))
    inside = array[source]
    result = array.new_zeros((array.shape[0], *patch))
    if inside.numel():
        result[target] = inside
    return result


def warp(
    image: Tensor,
    labels: Tensor | None,
    centre: np.ndarray,
    matrix: np.ndarray,
    shift: np.ndarray | None,
    patch: Sequence[int],
) -> tuple[Tensor, Tensor | None]:
    """Sample a patch whose voxel at offset ``o`` from its middle comes from ``centre + matrix @ o + shift``.

    Args:
        image: ``[C, *spatial]`` float32, interpolated linearly, zero outside.
        labels: ``[*spatial]`` uint8 or None; each class is interpolated linearly and the largest wins.
        shift: ``[dim, *patch]`` voxels, or None.
    """
    if 1 in image.shape[1:]:  # for grid_sample every coordinate along such an axis is that one voxel
        grow = [amount for side in reversed(image.shape[1:]) for amount in (0, int(side == 1))]
        image, labels = F.pad(image, grow), None if labels is None else F.pad(labels, grow)
    axes = [np.arange(side, dtype=np.float32) - (side - 1) / 2 for side in patch]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"))
    flat = matrix.astype(np.float32) @ offsets.reshape(len(patch), -1) + centre[:, None].astype(np.float32)
    if shift is not None:
        flat += shift.reshape(len(patch), -1)
    size = np.asarray(image.shape[1:])
    low = np.clip(np.floor(flat.min(1)).astype(int), 0, size - 1)
    high = np.clip(np.ceil(flat.max(1)).astype(int) + 1, low + 1, size)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = _normalised_grid(flat, low, high - low).reshape(1, *patch, len(patch))
    every = (slice(None), *box)
    moved = F.grid_sample(image[every][None], grid, align_corners=True)[0]
    if labels is None:
        return moved, None
    near = labels[box]
    present = torch.unique(near[near > 0])
    members = (near[None] == present.reshape(-1, *(1,) * near.ndim)).float()
    votes = F.grid_sample(members[None], grid, align_corners=True)[0]
    votes = torch.cat([1 - votes.sum(0, keepdim=True), votes])  # whatever is no organ, outside the volume too
    winner = votes.max(0).indices  # argmax is seven times slower along the first axis
    return moved, torch.cat([present.new_zeros(1), present])[winner]


def _normalised_grid(voxels: np.ndarray, low: np.ndarray, size: np.ndarray) -> Tensor:
    """Voxel coordinates ``[dim, n]`` as ``grid_sample`` wants them: ``[n, dim]`` in -1..1, last axis first."""
    scaled = 2 * (voxels - low[:, None]) / np.maximum(size - 1, 1)[:, None] - 1
    return torch.from_numpy(np.ascontiguousarray(scaled[::-1].T, dtype=np.float32))
