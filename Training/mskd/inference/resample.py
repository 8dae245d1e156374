"""Separable resampling in torch, one axis after the other, with the outer faces of the grid kept in place."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Kernel = Literal["bicubic", "bilinear"]


def resample(volume: Tensor, shape: tuple[int, int, int], kernel: Kernel = "bicubic") -> Tensor:
    """Bring ``[C, z, y, x]`` floats to ``shape``; axes that already fit are not touched.

    Down-sampling widens the kernel over the voxels it merges (antialiasing), as Pillow does.
    """
    channels, z, y, x = volume.shape
    if shape[0] != z:
        flat = volume.reshape(channels, 1, z, y * x)
        volume = F.interpolate(flat, size=(shape[0], y * x), mode=kernel, antialias=True)
        volume = volume.reshape(channels, shape[0], y, x)
    if shape[1:] != (y, x):
        volume = F.interpolate(volume, size=shape[1:], mode=kernel, antialias=True)
    return volume
