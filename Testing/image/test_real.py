"""Real volumes come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mskd.image import read_image, read_labels

pytestmark = pytest.mark.real_data


def test_volumes(real_data_folder: Path) -> None:
    paths = sorted((real_data_folder / "volumes").glob("*.nii.gz"))
    assert paths
    for path in paths:
        image = read_image(path)
        assert image.array.ndim == 4
        assert np.ptp(image.array) > 0


def test_hippocampus_labels_lie_on_their_images(real_data_folder: Path) -> None:
    for path in sorted((real_data_folder / "Task04_Hippocampus" / "labelsTr").glob("hipp*.nii.gz"))[:5]:
        labels, image = read_labels(path), read_image(path.parents[1] / "imagesTr" / path.name)
        assert labels.geometry.matches(image.geometry)
        assert set(np.unique(labels.array)) == {0, 1, 2}
