"""Real volumes come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mskd.image import read_image, read_labels

pytestmark = pytest.mark.real_data


@pytest.fixture
def data(root: Path) -> Path:
    folder = root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}")
    return folder


def test_volumes(data: Path) -> None:
    paths = sorted((data / "volumes").glob("*.nii.gz"))
    assert paths
    for path in paths:
        image = read_image(path)
        assert image.array.ndim == 4
        assert np.ptp(image.array) > 0


def test_hippocampus_labels_lie_on_their_images(data: Path) -> None:
    for path in sorted((data / "Task04_Hippocampus" / "labelsTr").glob("hipp*.nii.gz"))[:5]:
        labels, image = read_labels(path), read_image(path.parents[1] / "imagesTr" / path.name)
        assert labels.geometry.matches(image.geometry)
        assert set(np.unique(labels.array)) == {0, 1, 2}
