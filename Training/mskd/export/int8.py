"""OpenVINO's format with weights and activations of 8 bits, calibrated on images by NNCF."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mskd.errors import InputError
from mskd.export.openvino import OpenVINO
from mskd.image import read_image
from mskd.inference import preprocess
from mskd.inference.runtimes import import_openvino
from mskd.package import Package

MOST_VOXELS = 1 << 24
"""Of all windows: NNCF keeps features of many of them."""
MOST_IMAGES = 32
WINDOWS = 4
"""Of one image, evenly spaced along its first axis: organs lie at different heights."""


def calibration_windows(package: Package, cases: Mapping[str, tuple[Path, ...]]) -> list[Tensor]:
    """Windows ``[1, C, *patch]`` of images, prepared as the model sees them.

    Args:
        cases: Files of the channels of each image, by name.

    Raises:
        InputError: an image that cannot be used, or none at all.
    """
    manifest = package.manifest
    windows: list[Tensor] = []
    for name, paths in islice(cases.items(), MOST_IMAGES):
        if sum(window.numel() for window in windows) >= MOST_VOXELS:
            break
        image = read_image(paths[0] if len(paths) == 1 else paths)
        if image.array.shape[0] != len(manifest.channels):
            raise InputError(
                f"{name}: has {image.array.shape[0]} channels and the model '{manifest.name}' takes "
                f"{len(manifest.channels)}; --int8 takes a folder of images like those of training."
            )
        volume = torch.from_numpy(preprocess(image, manifest).array)
        windows += [window[:, :, 0] if manifest.dim == 2 else window for window in _pieces(volume, manifest.patch)]
    if not windows:
        raise InputError("There is no image for --int8; give a folder of images like those of training.")
    return windows


def _pieces(volume: Tensor, patch: Sequence[int]) -> list[Tensor]:
    """Up to ``WINDOWS`` pieces ``[1, C, z, y, x]`` of a volume ``[C, z, y, x]``, as large as the patch if that fits."""
    sides = [1] * (3 - len(patch)) + list(patch)
    depth, height, width = (min(side, whole) for side, whole in zip(sides, volume.shape[1:], strict=True))
    top, left = (volume.shape[2] - height) // 2, (volume.shape[3] - width) // 2
    last = volume.shape[1] - depth
    count = min(WINDOWS, ceil(volume.shape[1] / depth))
    starts = [last // 2] if count == 1 else [round(index * last / (count - 1)) for index in range(count)]
    return [volume[None, :, z : z + depth, top : top + height, left : left + width].contiguous() for z in starts]


class QuantizedOpenVINO(OpenVINO):
    """As OpenVINO. ``Testing/benchmarks/int8.py`` measures its speed and Dice.

    Args:
        windows: Images ``[1, C, *spatial]`` to find the range of every activation on.
    """

    def __init__(self, windows: Sequence[Tensor]) -> None:
        self._windows = windows

    @classmethod
    def available(cls) -> str | None:
        if importlib.util.find_spec("nncf") is None:
            return "the Python package 'nncf' is missing; install mskd[int8]."
        return super().available()

    def convert(self, package: Package) -> Any:
        # Its telemetry comes with OpenVINO's.
        nncf = import_openvino("nncf")
        nncf.set_log_level(logging.ERROR)
        examples = nncf.Dataset([window.numpy() for window in self._windows])
        return nncf.quantize(
            super().convert(package), examples, subset_size=len(self._windows), fast_bias_correction=False
        )
