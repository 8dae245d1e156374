"""From an image to what a network sees: turned, cropped, resampled, normalised. Training uses the same functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mskd.errors import InputError
from mskd.image.geometry import Geometry, Image, LabelMap
from mskd.inference.grid import Grid, InputSpec, make_grid
from mskd.inference.region import Region
from mskd.inference.resample import resample
from mskd.spec import IGNORE, Normalization

SMALLEST_DEVIATION = 1e-8
CHUNK_VOXELS = 1 << 21
SENT = {name: getattr(torch, name) for name in ("uint8", "int8", "int16", "int32")}
"""Types in which voxels go to a GPU; others go as float32."""


@dataclass(frozen=True)
class Prepared:
    """A network's input ``[C, z, y, x]``, float32, and the grid that leads back to the image."""

    array: NDArray[np.float32]
    grid: Grid

    @property
    def geometry(self) -> Geometry:
        """Where the prepared voxels lie."""
        return self.grid.geometry


def preprocess(image: Image, spec: InputSpec, region: Region | None = None) -> Prepared:
    """Turn to ``spec.orientation``, crop to the region (and some context), resample to ``spec.spacing``, normalise.

    Args:
        image: Voxels ``[C, z, y, x]`` of any numeric type.
        spec: Spacing, orientation and normalisation of the model.
        region: What to look at; None is the whole image. ``zscore`` takes its statistics from what is looked at.

    Raises:
        InputError: the region does not meet the image, or a voxel is not finite.
    """
    grid = make_grid(image.geometry, spec, region)
    return Prepared(prepare_tensor(image, grid, spec.normalization).numpy(), grid)


def prepare_tensor(
    image: Image, grid: Grid, normalization: Normalization, device: torch.device | str = "cpu"
) -> Tensor:
    """What :func:`preprocess` does once the grid is known; the result ``[C, z, y, x]`` stays on ``device``."""
    # Apple's GPUs have no float64, which normalisation sums in.
    place = torch.device("cpu" if torch.device(device).type == "mps" else device)
    volume = resample(_in_plane(grid.view(image.array), grid.geometry.shape[1:], place), grid.geometry.shape)
    return normalize(volume, normalization).to(device)


def _in_plane(voxels: NDArray, sides: tuple[int, int], device: torch.device) -> Tensor:
    """A copy as float32 ``[C, z, y, x]`` with slices of ``sides``; a few slices at a time, which fit a cache."""
    channels, depth, height, width = voxels.shape
    result = torch.empty(channels, depth, *sides, device=device)
    step = max(1, CHUNK_VOXELS // (height * width))
    for first in range(0, depth, step):
        chunk = _sent(voxels[:, first : first + step], device)
        result[:, first : first + step] = resample(chunk, (chunk.shape[1], *sides))
    return result


def _sent(voxels: NDArray, device: torch.device) -> Tensor:
    """A contiguous copy as float32; to a GPU voxels go in their own type, while the processor goes on."""
    to_gpu = device.type == "cuda"
    kind = SENT.get(voxels.dtype.name, torch.float32) if to_gpu else torch.float32
    staged = torch.empty(voxels.shape, dtype=kind, pin_memory=to_gpu)
    np.copyto(staged.numpy(), voxels, casting="unsafe")
    return staged.to(device, non_blocking=True).float()


def prepare_labels(labels: LabelMap, spec: InputSpec) -> NDArray[np.uint8]:
    """The labels ``[z, y, x]`` on the prepared grid of an image that shares their own grid.

    Each label is resampled linearly as a mask of its own and the largest share wins: smooth borders, no invented
    values. What is ``IGNORE`` for at least half of a voxel stays so, and has no vote elsewhere.
    """
    grid = make_grid(labels.geometry, spec)
    turned = np.array(grid.view(labels.array), order="C")
    if turned.shape == grid.geometry.shape:
        return turned
    source = torch.from_numpy(turned)
    best = torch.full(grid.geometry.shape, -1.0)
    winner = torch.zeros(grid.geometry.shape, dtype=torch.uint8)
    for value in map(int, np.unique(turned)):
        share = resample((source == value).float()[None], grid.geometry.shape, "bilinear")[0]
        if value == IGNORE:  # the largest value, so it comes last
            winner.masked_fill_(share >= 0.5, IGNORE)
        else:
            winner.masked_fill_(share > best, value)
            torch.maximum(best, share, out=best)
    return winner.numpy()


def normalize(volume: Tensor, normalization: Normalization) -> Tensor:
    """Normalise ``[C, z, y, x]`` in place, channel by channel. A constant channel becomes 0 under ``zscore``.

    Raises:
        InputError: a voxel is not finite.
    """
    if normalization.name == "clip_zscore":
        volume.clamp_(normalization.lower, normalization.upper)
        volume.sub_(normalization.mean or 0.0).div_(normalization.std or 1.0)
    for index, channel in enumerate(volume):
        # float64 sums: the deviation of values around 1e6 drowns in float32.
        mean = float(channel.sum(dtype=torch.float64)) / channel.numel()
        if not np.isfinite(mean):
            raise InputError(f"Channel {index + 1} of the image holds NaN or infinite voxels; replace them first.")
        if normalization.name == "zscore":
            channel.sub_(mean)
            deviation = float(torch.linalg.vector_norm(channel, dtype=torch.float64)) / channel.numel() ** 0.5
            channel.div_(max(deviation, SMALLEST_DEVIATION))
    return volume
