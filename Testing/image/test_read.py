"""Every format comes in on its own grid, and every file that cannot be used gets its sentence."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import DIRECTION, random_image, refused, write, write_series

from mskd.errors import InputError
from mskd.image import read_geometry, read_image, read_labels

NRRD = (
    b"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n"
    b"space directions: %s (0,1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
    b"space origin: (0,0,0)\n\n" + bytes(128)
)
META = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    b"ElementSpacing = 0 1 1\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n" + bytes(128)
)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_formats_come_in_on_their_own_grid(tmp_path: Path, suffix: str) -> None:
    image = random_image()
    read = read_image(write(tmp_path / f"a{suffix}", image))
    assert read.array.dtype == np.int16
    np.testing.assert_array_equal(read.array[0], sitk.GetArrayFromImage(image))
    assert read.geometry.spacing == pytest.approx((3.0, 2.0, 1.0))
    assert read.geometry.origin == pytest.approx((-5.0, 6.0, 7.0))
    assert read.geometry.direction == pytest.approx(DIRECTION, abs=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_the_grid_is_read_from_the_header(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", random_image())
    assert read_geometry(path) == read_image(path).geometry


def test_where_the_header_does_not_tell_the_grid(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", "1.2.9", [0.0, 3.0])
    (tmp_path / "text.nii.gz").write_text("no image")
    (tmp_path / "flat.mha").write_bytes(META)
    for name in ("ct", "text.nii.gz", "flat.mha", "absent.nrrd"):
        assert read_geometry(tmp_path / name) is None


def test_two_dimensional_image_is_one_slice(tmp_path: Path) -> None:
    path = write(tmp_path / "slice.nrrd", sitk.GetImageFromArray(np.ones((4, 5), dtype=np.uint8)))
    assert read_image(path).array.shape == (1, 1, 4, 5)


def test_fourth_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.ones((1, 3, 4, 5), dtype=np.int16), isVector=False)
    assert read_image(write(tmp_path / "one.nii.gz", image)).array.shape == (1, 3, 4, 5)


def test_several_files_are_channels(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, random_image()) for name in ("a.nrrd", "b.nii.gz")]
    assert read_image(paths).array.shape == (2, 8, 9, 10)


def test_dicom_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", "1.2.9", [0.0, 3.0, 6.0, 9.0])
    read = read_image(tmp_path / "ct")
    assert read.array.shape == (1, 4, 6, 5)
    assert read.geometry.spacing == pytest.approx((3.0, 2.0, 1.5))
    np.testing.assert_array_equal(read.array[0, :, 0, 0], [0, 1, 2, 3])


def test_single_file_dicom_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", "1.2.9", [4.0])
    assert read_image(tmp_path / "ct").array.shape == (1, 1, 6, 5)


def test_missing_and_doubled_slices(tmp_path: Path) -> None:
    write_series(tmp_path / "gap", "1.2.9", [0.0, 3.0, 9.0, 12.0])
    assert "6 mm apart where 3 mm is usual" in refused(tmp_path / "gap")


def test_two_series_are_listed(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", "1.2.7", [0.0, 1.0], "ARTERIAL")
    write_series(tmp_path / "ct", "1.2.8", [0.0, 1.0, 2.0], "VENOUS")
    sentence = refused(tmp_path / "ct")
    for part in ("2 DICOM series", "ARTERIAL, 2 files", "1.2.7", "VENOUS, 3 files", "1.2.8"):
        assert part in sentence


def test_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    assert "no DICOM series" in refused(tmp_path)


def test_not_there(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.txt", "a"])
@pytest.mark.parametrize("content", [b"", b"hello, I am no image", os.urandom(1000)])
def test_not_an_image(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(path)


@pytest.mark.usefixtures("gzipping")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", random_image())
    path.write_bytes(path.read_bytes()[:-200])
    assert "truncated" in refused(path)


@pytest.mark.usefixtures("gzipping")
def test_corrupt_gzip_body(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    noise = np.random.default_rng(1).integers(0, 30000, (60, 80, 80)).astype(np.int16)
    content = bytearray(write(path, sitk.GetImageFromArray(noise)).read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_fourth_axis_holds_the_channels(tmp_path: Path, suffix: str) -> None:
    channels = [random_image(), random_image() * 2]
    image = write(tmp_path / f"4d{suffix}", sitk.JoinSeries(channels))
    read = read_image(image)
    np.testing.assert_array_equal(read.array, [sitk.GetArrayFromImage(channel) for channel in channels])
    assert read.geometry.matches(read_image(write(tmp_path / f"3d{suffix}", channels[0])).geometry)
    with pytest.raises(InputError, match="holds 2 channels; a label map has one"):
        read_labels(image)


@pytest.mark.parametrize("shape", [(17, 3, 4, 5), (2, 2, 3, 4, 5)])
def test_time_series_are_no_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = sitk.GetImageFromArray(np.zeros(shape, dtype=np.int16), isVector=False)
    assert f"has {len(shape)} axes" in refused(write(tmp_path / "series.nii.gz", image))


@pytest.mark.parametrize("name", ["rgb.nrrd", "rgb.nii.gz", "rgb.mha"])
def test_colour(tmp_path: Path, name: str) -> None:
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), dtype=np.uint8), isVector=True)
    assert "colour" in refused(write(tmp_path / name, image))


@pytest.mark.parametrize("step", [0.0, float("nan")])
@pytest.mark.parametrize("packed", [False, True])
def test_zero_spacing_nifti(tmp_path: Path, step: float, packed: bool) -> None:
    content = bytearray(write(tmp_path / "a.nii", random_image()).read_bytes())
    struct.pack_into("<f", content, 80, step)
    path = tmp_path / ("b.nii.gz" if packed else "b.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert "spacing" in refused(path)


@pytest.mark.parametrize(("name", "content"), [("a.nrrd", NRRD % b"(0,0,0)"), ("a.mha", META)])
def test_zero_spacing_elsewhere(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert "spacing" in refused(path)


def test_singular_direction(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD % b"(0,1,0)")
    assert "singular" in refused(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite(tmp_path: Path, value: float) -> None:
    array = np.zeros((3, 4, 5), dtype=np.float32)
    array[1, 2, 3] = value
    assert "1 of 60 voxels" in refused(write(tmp_path / "a.nii.gz", sitk.GetImageFromArray(array)))


def test_channels_on_different_grids(tmp_path: Path) -> None:
    moved = random_image()
    moved.SetOrigin((0.0, 0.0, 0.0))
    small = sitk.GetImageFromArray(np.zeros((2, 3, 4), dtype=np.int16))
    first = write(tmp_path / "a.nrrd", random_image())
    assert "mm apart" in refused([first, write(tmp_path / "b.nrrd", moved)])
    assert "(2, 3, 4)" in refused([first, write(tmp_path / "c.nrrd", small)])


def test_labels_of_any_type(tmp_path: Path) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(np.float32)
    labels = read_labels(write(tmp_path / "a.nii.gz", sitk.GetImageFromArray(array)))
    assert labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.array, array)


def test_labels_become_what_their_values_mean(tmp_path: Path) -> None:
    array = np.array([[[0, 3, 700, 9]]], dtype=np.float32)
    path = write(tmp_path / "a.nii.gz", sitk.GetImageFromArray(array))
    assert read_labels(path, {0: 0, 3: 1, 700: 2, 9: 255}).array.ravel().tolist() == [0, 1, 2, 255]
    with pytest.raises(InputError, match=r"the value 9, which the data set does not name \(it names \[0, 3, 700\]\)"):
        read_labels(path, {0: 0, 3: 1, 700: 2})


@pytest.mark.parametrize(("value", "word"), [(0.5, "0.5"), (-1.0, "-1"), (256.0, "256")])
def test_labels_outside_the_rule(tmp_path: Path, value: float, word: str) -> None:
    array = np.zeros((2, 3, 4), dtype=np.float32)
    array[0, 0, 0] = value
    with pytest.raises(InputError, match=word):
        read_labels(write(tmp_path / "a.nrrd", sitk.GetImageFromArray(array)))
