"""What the tests of reading share: images, and the sentence of a file that is refused."""

from __future__ import annotations

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
