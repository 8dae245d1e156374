"""Small data sets in nnU-Net's layout, each with the peculiarity that a test is about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mskd.data import Dataset, open_dataset

NAMES = ("bright", "dark")


def blocks(index: int, shape: Sequence[int] = (12, 14, 16)) -> tuple[np.ndarray, np.ndarray]:
    """An image float32 ``[z, y, x]`` and its labels: a bright block, a dark one, and noise."""
    rng = np.random.default_rng(index)
    labels = np.zeros(shape, np.uint8)
    z, y, x = (int(rng.integers(0, max(1, side // 4))) for side in shape)
    deep, high, wide = (max(1, side // 3) for side in shape)
    labels[z : z + deep, y : y + high, x : x + wide] = 1
    labels[z : z + deep, y + high : y + 2 * high, x + wide : x + 2 * wide] = 2
    image = np.choose(np.minimum(labels, 2), [0.0, 100.0, -100.0]) + rng.normal(0, 10, shape)
    return image.astype(np.float32), labels


def write_dataset(
    folder: Path,
    cases: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    names: Sequence[str] = NAMES,
    ignore: int | None = None,
) -> Dataset:
    """Write cases, images ``[z, y, x]`` or ``[C, z, y, x]``; one without labels lies in ``imagesTs``."""
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    channels = 1
    for name, (image, labels) in cases.items():
        volumes = image if image.ndim == 4 else image[None]
        channels = len(volumes)
        for channel, volume in enumerate(volumes):
            part = "imagesTs" if labels is None else "imagesTr"
            sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / part / f"{name}_{channel:04d}.nii.gz"))
        if labels is not None:
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(folder / "labelsTr" / f"{name}.nii.gz"))
    labels_of = {"background": 0, **{name: value for value, name in enumerate(names, start=1)}}
    description = {
        "name": "blocks",
        "channel_names": {str(channel): "CT" for channel in range(channels)},
        "labels": labels_of | ({} if ignore is None else {"ignore": ignore}),
        "numTraining": sum(labels is not None for _, labels in cases.values()),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return open_dataset(folder)


def change_voxel(path: Path, value: float) -> None:
    """Give the last voxel of an image file another value."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    array[-1, -1, -1] = value
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
