"""What is measured of a case, against what was put into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.data.check.labels import measure_classes
from mskd.data.check.measure import measure_case
from mskd.data.check.surroundings import bare_share
from mskd.data.check.voxels import signature
from mskd.data.dataset import Case, Dataset
from mskd.data.legend import make_legend
from mskd.image import Geometry
from mskd.spec import Channel

GEOMETRY = Geometry((10, 20, 30), (3.0, 2.0, 1.0), (5.0, 6.0, 7.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))


def blocks() -> np.ndarray:
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[2:6, 4:10, 5:15] = 3
    labels[9, 19, 29] = 3
    return labels


def test_a_class_is_measured_in_millimetres() -> None:
    labels = blocks()
    image = np.where(labels == 3, 100.0, 0.0)
    (value, found), *rest = measure_classes(image, labels, GEOMETRY).items()
    assert (value, rest) == (3, [])
    assert (found.voxels, found.volume_ml) == (241, pytest.approx(241 * 6 / 1000))
    z, y, x = (np.argwhere(labels == 3)).mean(axis=0)
    assert found.centroid == pytest.approx((5 - x, 6 - 2 * y, 7 + 3 * z))
    assert (found.components, found.islands, found.at_edge) == (2, 1, True)
    assert found.stray == pytest.approx(np.linalg.norm([4 * 3, 10 * 2, 15 * 1]))
    assert found.rank == pytest.approx(1 - 241 / 6000 / 2)
    assert found.rank_spread == pytest.approx(0, abs=1e-6)


def test_the_share_of_labels_in_blank_slices() -> None:
    labels = blocks()[:9]
    image = np.ones(labels.shape)
    image[labels > 0] = 5
    assert bare_share(image, labels) == 1
    image[:4] += np.arange(30)
    assert bare_share(image, labels) == 0.5
    assert bare_share(image, np.zeros_like(labels)) == 0


def test_a_signature_knows_the_image_and_not_the_numbers() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 20, 33, 7))
    own = signature([first])
    assert own @ own == pytest.approx(1)
    assert own @ signature([3 * first + 7]) == pytest.approx(1)
    assert own @ signature([first + rng.normal(0, 0.01, first.shape)]) > 0.99
    assert abs(own @ signature([second])) < 0.2
    assert signature([np.full((20, 33, 7), 4)]) @ own == 0
    assert signature([first, second]) @ signature([first, first]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("direction", "letters"), [(GEOMETRY.direction, "RAS"), ((0, 0, 1.0, 1, 0, 0, 0, -1, 0), "PIL")]
)
def test_the_picture_is_upright_whatever_the_file(tmp_path: Path, direction: tuple[float, ...], letters: str) -> None:
    """The same bright corner (left, back) lands in the same corner of the picture, in true proportions."""
    image = sitk.Image(24, 24, 24, sitk.sitkInt16)
    image.SetDirection(direction)
    image.SetSpacing([2.0 if letter in "LR" else 1.0 for letter in letters])
    array = np.zeros((24, 24, 24), np.int16)
    ends = [slice(18, None) if letter in "LP" else slice(0, 6) if letter in "RA" else slice(None) for letter in letters]
    array[tuple(ends[::-1])] = 100
    filled = sitk.GetImageFromArray(array)
    filled.CopyInformation(image)
    sitk.WriteImage(filled, str(tmp_path / "image.nrrd"))
    case = Case("one", (tmp_path / "image.nrrd",), None, "one")
    channels = (Channel(name="CT", modality="CT"),)
    measured = measure_case(
        Dataset("set", tmp_path, channels, make_legend(Path("set"), {1: "a"}).labels, (case,)), case, tile=True
    )
    assert measured.orientation == letters
    assert measured.tile is not None
    assert measured.tile.shape == (90, 180, 3)
    grey = measured.tile[..., 0].astype(float)
    assert [int(corner.mean()) for corner in (grey[70:, 140:], grey[:60], grey[:, :120])] == [255, 0, 0]
