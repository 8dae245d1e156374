"""What the tests of reading share: images, and the sentence of a file that is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.errors import InputError
from mskd.image import read_image

DIRECTION = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def random_image(kind: type = np.int16) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 1000, (8, 9, 10)).astype(kind))
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((-5.0, 6.0, 7.0))
    image.SetDirection(DIRECTION)
    return image


def write(path: Path, image: sitk.Image) -> Path:
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def refused(path: Path | list[Path]) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", ")."))
    return sentence


def grey_slice(index: int) -> sitk.Image:
    return sitk.GetImageFromArray(np.full((6, 5), index, dtype=np.int16))


def write_series(
    folder: Path,
    uid: str,
    heights: list[float],
    description: str = "CHEST",
    content: Callable[[int], sitk.Image] = grey_slice,
) -> None:
    """A file for each height, with the image that ``content`` makes of its number."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, height in enumerate(heights):
        one = content(index)
        one.SetSpacing((1.5, 2.0, 1.0)[: one.GetDimension()])
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{index}",
            "0008|0060": "CT",
            "0008|103e": description,
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0013": str(index),
            "0020|0032": f"0\\0\\{height}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for key, value in tags.items():
            one.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}.{index}.dcm"))
        writer.Execute(one)
