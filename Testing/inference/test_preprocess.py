"""Preparation: orientation, spacing, normalisation, the region, and labels that stay with their image."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.errors import InputError, SettingsError
from mskd.image import Geometry, Image, LabelMap
from mskd.inference import Region, make_grid, prepare_labels, preprocess
from mskd.spec import IGNORE, Normalization

OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
ORIENTATIONS = ["LPS", "RAS", "SAR", "PIR"]


def spec(spacing: tuple[float | None, ...] = (None, None, None), orientation: str = "LPS", **normalization: Any) -> Any:
    return SimpleNamespace(
        spacing=spacing, orientation=orientation, normalization=Normalization(**(normalization or {"name": "none"}))
    )


def random_image(geometry: Geometry, channels: int = 1) -> Image:
    voxels = np.random.default_rng(0).normal(40, 10, (channels, *geometry.shape)).astype(np.float32)
    return Image(voxels, geometry)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("file_orientation", ["LPS", "RAS", "ASL"])
def test_orientation_agrees_with_itk(orientation: str, file_orientation: str) -> None:
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    image.SetSpacing((1.0, 2.0, 3.0))
    image = sitk.DICOMOrient(image, file_orientation)
    z, y, x = sitk.GetArrayFromImage(image).shape
    geometry = Geometry((z, y, x), image.GetSpacing()[::-1], image.GetOrigin(), image.GetDirection())
    prepared = preprocess(Image(sitk.GetArrayFromImage(image)[None], geometry), spec(orientation=orientation))
    expected = sitk.DICOMOrient(image, orientation)
    np.testing.assert_array_equal(prepared.array[0], sitk.GetArrayFromImage(expected))
    assert prepared.geometry.spacing == pytest.approx(expected.GetSpacing()[::-1])
    assert prepared.geometry.origin == pytest.approx(expected.GetOrigin())
    assert prepared.geometry.direction == pytest.approx(expected.GetDirection())


def test_oblique_directions_stay_oblique() -> None:
    geometry = Geometry((3, 4, 5), (3.0, 2.0, 1.0), (1.0, 2.0, 3.0), OBLIQUE)
    prepared = preprocess(random_image(geometry), spec(orientation="LPS"))
    assert prepared.geometry.matches(geometry)


def test_the_image_is_never_changed() -> None:
    image = random_image(Geometry((3, 4, 5)))
    before = image.array.copy()
    preprocess(image, spec(name="zscore"))
    np.testing.assert_array_equal(image.array, before)


def test_spacing_keeps_the_outer_faces() -> None:
    geometry = Geometry((10, 11, 12), (3.0, 1.0, 1.0), (5.0, 6.0, 7.0))
    prepared = preprocess(random_image(geometry), spec(spacing=(1.0, 2.0, None)))
    assert prepared.array.shape == (1, 30, 6, 12)  # 11 x 1 mm into 2 mm: 5.5 rounds to even 6
    faces = [geometry.point((-0.5,) * 3), geometry.point(tuple(side - 0.5 for side in geometry.shape))]
    own = prepared.geometry
    assert own.point((-0.5,) * 3) == pytest.approx(faces[0])
    assert own.point(tuple(side - 0.5 for side in own.shape)) == pytest.approx(faces[1])


def test_resampling_keeps_a_ramp() -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (1, 6, 6, 40)).copy()
    prepared = preprocess(Image(ramp, Geometry((6, 6, 40))), spec(spacing=(1.0, 1.0, 2.0)))
    np.testing.assert_allclose(prepared.array[0, 0, 0, 2:-2], np.arange(0.5, 40, 2)[2:-2], atol=1e-3)


def test_small_differences_of_spacing_are_left_alone() -> None:
    image = random_image(Geometry((4, 5, 6), (1.004, 0.996, 1.0)))
    np.testing.assert_array_equal(preprocess(image, spec(spacing=(1.0, 1.0, 1.0))).array, image.array)


def test_a_single_slice_stays_one() -> None:
    image = random_image(Geometry((1, 8, 8), (5.0, 1.0, 1.0)))
    assert preprocess(image, spec(spacing=(1.0, 1.0, 1.0))).array.shape == (1, 1, 8, 8)


def test_zscore_by_channel_even_for_large_values() -> None:
    image = random_image(Geometry((8, 9, 10)), channels=2)
    image.array[1] = image.array[1] * 1e4 + 1e6
    prepared = preprocess(image, spec(name="zscore")).array
    for channel in prepared:
        assert channel.mean() == pytest.approx(0, abs=1e-3)
        assert channel.std() == pytest.approx(1, abs=1e-3)


def test_a_constant_image_becomes_zero() -> None:
    image = Image(np.full((1, 3, 4, 5), 7, dtype=np.int16), Geometry((3, 4, 5)))
    np.testing.assert_array_equal(preprocess(image, spec(name="zscore")).array, 0)


def test_clip_zscore() -> None:
    image = Image(np.array([-2000, 0, 50, 2000], dtype=np.int16).reshape(1, 1, 1, 4), Geometry((1, 1, 4)))
    prepared = preprocess(image, spec(name="clip_zscore", lower=-100.0, upper=100.0, mean=10.0, std=20.0))
    np.testing.assert_allclose(prepared.array.ravel(), [-5.5, -0.5, 2.0, 4.5])


@pytest.mark.parametrize("name", ["zscore", "none"])
def test_voxels_that_are_not_finite(name: str) -> None:
    image = random_image(Geometry((3, 4, 5)))
    image.array[0, 1, 1, 1] = np.nan
    with pytest.raises(InputError, match="NaN"):
        preprocess(image, spec(name=name))


def test_labels_stay_with_their_image() -> None:
    geometry = Geometry((12, 14, 16), (2.5, 1.0, 1.0), (1.0, 2.0, 3.0), (-1, 0, 0, 0, 0, 1, 0, -1, 0))
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    labels[2:6, 3:9, 4:12], labels[7:11, 3:9, 4:12] = 3, 7
    wanted = spec(spacing=(1.0, 1.5, 1.2), orientation="RAS")
    image = preprocess(Image(labels[None].astype(np.float32), geometry), wanted)
    prepared = prepare_labels(LabelMap(labels, geometry), wanted)
    assert prepared.shape == image.array.shape[1:]
    assert set(np.unique(prepared)) == {0, 3, 7}
    inside = np.isin(np.round(image.array[0], 3), [0, 3, 7])
    np.testing.assert_array_equal(prepared[inside], np.round(image.array[0][inside]))


def test_labels_without_resampling_are_exact() -> None:
    geometry = Geometry((3, 4, 5), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    labels = np.random.default_rng(0).integers(0, 255, geometry.shape).astype(np.uint8)
    prepared = prepare_labels(LabelMap(labels, geometry), spec(orientation="LPS"))
    np.testing.assert_array_equal(prepared, labels[:, ::-1, ::-1])
    prepared[:] = 0
    assert labels.any()


def test_ignored_voxels_stay_ignored_and_have_no_vote() -> None:
    labels = np.zeros((4, 12, 12), dtype=np.uint8)
    labels[:, :, 3:6], labels[:, :, 6:] = 1, IGNORE
    labels[:, 0, 0] = 2
    prepared = prepare_labels(LabelMap(labels, Geometry(labels.shape)), spec(spacing=(None, 0.5, 0.5)))
    assert prepared.shape == (4, 24, 24)
    assert (prepared[:, :, 12:] == IGNORE).all()  # the border lies where it lay: neither smeared nor eaten
    assert (prepared[:, 4:, 7:12] == 1).all()
    assert set(np.unique(prepared)) == {0, 1, 2, IGNORE}
    mixed = np.full((1, 1, 9), IGNORE, np.uint8)
    mixed[..., [0, 2, 3]] = [1, 2, 3]
    coarse = prepare_labels(LabelMap(mixed, Geometry(mixed.shape)), spec(spacing=(None, None, 3.0))).ravel()
    assert coarse[0] in (1, 2)  # more is ignored there than has either label, but less than half
    assert coarse[1:].tolist() == [IGNORE, IGNORE]


def test_region_takes_a_margin_and_its_own_statistics() -> None:
    image = random_image(Geometry((40, 40, 40), (1.0, 1.0, 1.0), (-20.0, -20.0, -20.0)))
    image.array[..., :10] = 1e5
    region = Region((-8.0, -5.0, -5.0), (5.0, 5.0, 5.0))
    prepared = preprocess(image, spec(name="zscore"), region)
    assert prepared.array.shape == (1, 19, 19, 22)  # 10 x 10 x 13 mm and 4 mm of context
    assert np.abs(prepared.array).max() < 10


def whole_voxels(count: int) -> Region:
    """Of the grid with voxels of 0.7 x 0.992 x 1.005 mm: ``count`` along each axis, from the eighth on."""
    z, y, x = ((8 * step, (8 + count - 1) * step) for step in (0.7, 0.992, 1.005))
    return Region((-x[1], -y[1], z[0]), (-x[0], -y[0], z[1]))


def test_context_never_makes_a_region_larger_than_what_the_network_sees_at_once() -> None:
    image = Geometry((40, 40, 40), (1.0, 1.0, 2.0), (-20.0, -20.0, -20.0))
    region = Region((-8.0, -5.0, -5.0), (5.0, 5.0, 5.0))  # 11 x 11 voxels along z and y, 7 along x
    inner, outer = make_grid(image, spec(), region, (0, 0, 0)), make_grid(image, spec(), region)
    assert inner.crop_shape == outer.crop_shape == (19, 19, 11), "a region that does not fit keeps all of it"
    grid = make_grid(image, spec(), region, (14, 19, 11))
    assert grid.crop_shape == (14, 19, 11)
    assert grid.crop[0] == slice(outer.crop[0].start + 2, outer.crop[0].stop - 3)
    grid = make_grid(image, spec(spacing=(1.0, 1.0, 1.0)), region, (11, 100, 16))
    assert (grid.crop_shape, grid.geometry.shape) == ((11, 19, 8), (11, 19, 16))
    assert grid.crop[0] == slice(15, 26)
    fine = make_grid(Geometry((64, 64, 64), (0.7, 0.992, 1.005)), spec(spacing=(0.7, 1.0, 1.0)), whole_voxels(48))
    assert fine.geometry.shape == (58, 56, 54)
    limited = make_grid(fine.source, spec(spacing=(0.7, 1.0, 1.0)), whole_voxels(48), (48, 50, 48))
    assert limited.geometry.shape == (48, 50, 48), "whatever rounding does"
    at_the_edge = Region((-8.0, -5.0, -19.0), (5.0, 5.0, -10.0))
    assert make_grid(image, spec(), at_the_edge, (11, 19, 11)).crop[0] == slice(1, 12), "there is little below"


def test_region_that_misses_the_image() -> None:
    with pytest.raises(InputError, match="holds no voxel"):
        make_grid(Geometry((4, 4, 4)), spec(), Region((100.0, 0.0, 0.0), (110.0, 1.0, 1.0)))


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d,e,f", "2,1,0,1,0,1", "0,nan,0,1,0,1"])
def test_regions_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="region of interest"):
        Region.parse(text)


def test_region_is_ras() -> None:
    geometry = Geometry((5, 5, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    mask = Region.parse("-1,0,-2,0,3,4").mask(geometry)
    found = np.argwhere(mask)
    assert found.min(axis=0).tolist() == [3, 0, 0]
    assert found.max(axis=0).tolist() == [4, 2, 1]
