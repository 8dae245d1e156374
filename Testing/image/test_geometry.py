"""Grids: points, boxes, comparison, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mskd.errors import InputError
from mskd.image import Geometry, Image, LabelMap

OBLIQUE = Geometry(
    shape=(4, 5, 6),
    spacing=(3.0, 2.0, 1.0),
    origin=(10.0, -20.0, 30.0),
    direction=(0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0),
)


def test_point_follows_itk() -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.Image(6, 5, 4, sitk.sitkUInt8)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin(OBLIQUE.origin)
    image.SetDirection(OBLIQUE.direction)
    assert OBLIQUE.point((1, 2, 3)) == pytest.approx(image.TransformIndexToPhysicalPoint((3, 2, 1)))


def test_voxel_volume() -> None:
    assert OBLIQUE.voxel_volume == pytest.approx(6.0)


def test_matches_within_a_thousandth_of_a_voxel() -> None:
    def moved(distance: float) -> Geometry:
        return Geometry(OBLIQUE.shape, OBLIQUE.spacing, (10.0 + distance, -20.0, 30.0), OBLIQUE.direction)

    assert OBLIQUE.matches(moved(0.0005))
    assert not OBLIQUE.matches(moved(0.1))
    assert OBLIQUE.corner_distance(moved(0.1)) == pytest.approx(0.1)
    assert not OBLIQUE.matches(Geometry((4, 5, 7), OBLIQUE.spacing, OBLIQUE.origin, OBLIQUE.direction))


def test_turned_grid_does_not_match() -> None:
    assert not OBLIQUE.matches(Geometry(OBLIQUE.shape, OBLIQUE.spacing, OBLIQUE.origin))


def test_index_box_takes_the_voxels_whose_centres_lie_inside() -> None:
    grid = Geometry((10, 10, 10), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert grid.index_box((1.5, 2.0, 3.0), (4.0, 100.0, 7.0)) == (slice(2, 4), slice(2, 10), slice(2, 5))


def test_index_box_outside_is_none() -> None:
    assert OBLIQUE.index_box((500.0, 500.0, 500.0), (600.0, 600.0, 600.0)) is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"spacing": (0.0, 1.0, 1.0)}, "spacing"),
        ({"spacing": (float("nan"), 1.0, 1.0)}, "spacing"),
        ({"spacing": (-1.0, 1.0, 1.0)}, "spacing"),
        ({"shape": (0, 1, 1)}, "size"),
        ({"origin": (0.0, float("inf"), 0.0)}, "origin"),
        ({"direction": (1.0,) * 9}, "singular"),
        ({"direction": (1.0,) * 4}, "nine"),
    ],
)
def test_impossible_grids_are_refused(change: dict, word: str) -> None:
    fields = {"shape": (2, 2, 2), **change}
    with pytest.raises(InputError, match=word):
        Geometry(**fields)


def test_arrays_must_fit_their_grid() -> None:
    grid = Geometry((2, 3, 4))
    with pytest.raises(InputError, match="channels"):
        Image(np.zeros((2, 3, 4)), grid)
    with pytest.raises(InputError, match="uint8"):
        LabelMap(np.zeros((2, 3, 4), dtype=np.int16), grid)  # type: ignore[arg-type]
