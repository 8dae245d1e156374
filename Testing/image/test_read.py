"""Every format comes in on its own grid, and every file that cannot be used gets its sentence."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.errors import InputError
from mskd.image import dicom, read_image, read_labels
from mskd.image import nifti as nifti_module
from mskd.image.nifti import check_nifti, load_nifti

DIRECTION = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
NRRD = (
    b"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n"
    b"space directions: %s (0,1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
    b"space origin: (0,0,0)\n\n" + bytes(128)
)
META = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    b"ElementSpacing = 0 1 1\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n" + bytes(128)
)


def random_image(kind: type = np.int16) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 1000, (8, 9, 10)).astype(kind))
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((-5.0, 6.0, 7.0))
    image.SetDirection(DIRECTION)
    return image


def write(path: Path, image: sitk.Image) -> Path:
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def write_series(folder: Path, uid: str, heights: list[float], description: str = "CHEST") -> None:
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, height in enumerate(heights):
        one = sitk.GetImageFromArray(np.full((6, 5), index, dtype=np.int16))
        one.SetSpacing((1.5, 2.0))
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


def refused(path: Path | list[Path]) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", ")."))
    return sentence


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_formats_come_in_on_their_own_grid(tmp_path: Path, suffix: str) -> None:
    image = random_image()
    read = read_image(write(tmp_path / f"a{suffix}", image))
    assert read.array.dtype == np.int16
    np.testing.assert_array_equal(read.array[0], sitk.GetArrayFromImage(image))
    assert read.geometry.spacing == pytest.approx((3.0, 2.0, 1.0))
    assert read.geometry.origin == pytest.approx((-5.0, 6.0, 7.0))
    assert read.geometry.direction == pytest.approx(DIRECTION, abs=1e-6)


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


@pytest.fixture(params=["zlib", "isal.isal_zlib"])
def inflating(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks gzip, with the package that is quicker and without it."""
    monkeypatch.setattr(nifti_module, "inflating", pytest.importorskip(request.param))


@pytest.mark.usefixtures("inflating")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", random_image())
    path.write_bytes(path.read_bytes()[:-200])
    assert "truncated" in refused(path)


@pytest.mark.usefixtures("inflating")
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


@pytest.mark.usefixtures("inflating")
@pytest.mark.parametrize("packed", [False, True])
def test_check_counts_voxels_that_lie_across_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    array = np.random.default_rng(0).normal(size=(6, 7, 8))
    array[0, 0, 0] = array[3, 3, 3] = array[-1, -1, -1] = np.nan
    content = write(tmp_path / "whole.nii", sitk.GetImageFromArray(array)).read_bytes()
    monkeypatch.setattr(nifti_module, "CHUNK", 101)
    monkeypatch.setattr(nifti_module, "COMPRESSED_CHUNK", 101)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    for data, said in ((content, "3 of 336 voxels"), (content[:-5], "2680 of 2688 bytes")):
        path.write_bytes(gzip.compress(data) if packed else data)
        with pytest.raises(InputError, match=said):
            check_nifti(path)


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


def in_one_thread(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    uid = reader.GetGDCMSeriesIDs(str(folder))[0]
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    return reader.Execute()


@pytest.mark.parametrize("processors", [1, 3])
@pytest.mark.parametrize("heights", [[3.0 * index for index in range(25)], [-1.25 * index for index in range(17)]])
def test_a_series_in_threads_is_what_itk_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int, heights: list[float]
) -> None:
    monkeypatch.setattr(dicom, "_processors", lambda: processors)
    write_series(tmp_path / "ct", "1.2.9", heights)
    read, truth = read_image(tmp_path / "ct"), in_one_thread(tmp_path / "ct")
    np.testing.assert_array_equal(read.array[0], sitk.GetArrayFromImage(truth))
    assert read.geometry.spacing[::-1] == truth.GetSpacing()
    assert (read.geometry.origin, read.geometry.direction) == (truth.GetOrigin(), truth.GetDirection())


def test_faults_of_a_series_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "_processors", lambda: 3)
    write_series(tmp_path / "gap", "1.2.9", [3.0 * index for index in range(30) if index != 20])
    assert "6 mm apart where 3 mm is usual" in refused(tmp_path / "gap")
    write_series(tmp_path / "odd", "1.2.9", [3.0 * index for index in range(30)])
    large = sitk.GetImageFromArray(np.zeros((7, 8), np.int16))
    spoilt = sitk.ReadImage(str(tmp_path / "odd" / "1.2.9.20.dcm"))
    for key in spoilt.GetMetaDataKeys():
        if key not in ("0028|0010", "0028|0011"):
            large.SetMetaData(key, spoilt.GetMetaData(key))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(tmp_path / "odd" / "1.2.9.20.dcm"))
    writer.Execute(large)
    assert "cannot be decoded" in refused(tmp_path / "odd")


AFFINES = {
    "plain": np.diag([1.0, 2.0, 3.0]),
    "flipped": np.diag([-1.0, 2.0, -3.0]),
    "oblique": np.reshape(DIRECTION, (3, 3)) @ np.diag([1.0, 2.0, 3.0]),
    "permuted": np.array([[0.0, 0.0, 3.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]),
}


def nifti(array: np.ndarray, order: str, form: str, affine: np.ndarray, slope: tuple[float, float]) -> bytes:
    """A NIfTI-1 file with one header field after the other as given; both forms where ``form`` is "both"."""
    code = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024}
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    sides = array.shape[::-1]
    struct.pack_into(order + "8h", header, 40, len(sides), *sides, *(1,) * (7 - len(sides)))
    struct.pack_into(order + "2h", header, 70, code[array.dtype.str[1:]], 8 * array.itemsize)
    struct.pack_into(order + "8f", header, 76, 1.0, 1.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0)
    struct.pack_into(order + "3f", header, 108, 352.0, *slope)
    struct.pack_into("B", header, 123, 2)
    struct.pack_into(order + "2h", header, 252, form in ("qform", "both"), form in ("sform", "both"))
    # A turn about z by 90 degrees, another place than the sform's: whoever mixes the two up is seen.
    struct.pack_into(order + "6f", header, 256, 0.0, 0.0, 0.70710678, 7.0, 8.0, 9.0)
    rows = np.c_[affine, [-5.0, 6.0, 7.0]]
    struct.pack_into(order + "12f", header, 280, *rows.ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + array.astype(array.dtype.newbyteorder(order)).tobytes()


def same_as_itk(path: Path) -> None:
    read, truth = read_image(path), sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(truth)
    assert read.array.dtype == array.dtype
    assert read.array.dtype.isnative
    assert read.array.flags.writeable
    np.testing.assert_array_equal(read.array, array.reshape(read.array.shape))
    assert read.geometry.shape == truth.GetSize()[2::-1]
    assert read.geometry.spacing == truth.GetSpacing()[2::-1]
    assert read.geometry.origin == truth.GetOrigin()[:3]
    axes = truth.GetDimension()
    assert read.geometry.direction == tuple(np.reshape(truth.GetDirection(), (axes, axes))[:3, :3].ravel())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_nifti_is_what_itk_reads(tmp_path: Path, kind: str, order: str, packed: bool) -> None:
    array = np.random.default_rng(0).integers(0, 100, (5, 6, 7)).astype(kind)
    content = nifti(array, order, "both", AFFINES["oblique"], (1.0, 0.0))
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert load_nifti(path) is not None
    same_as_itk(path)


@pytest.mark.parametrize("form", ["sform", "qform", "both", "none"])
@pytest.mark.parametrize("affine", AFFINES)
def test_nifti_lies_where_itk_puts_it(tmp_path: Path, form: str, affine: str) -> None:
    array = np.arange(210, dtype=np.int16).reshape(5, 6, 7)
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(array, "<", form, AFFINES[affine], (0.0, 0.0)))
    same_as_itk(path)


@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.0, 5.0), (1.0, 0.0), (1.0, 5.0), (2.5, -3.0), (float("nan"), 0.0)])
@pytest.mark.parametrize("kind", ["u1", "i2", "f4"])
def test_scaled_nifti_is_what_itk_reads(tmp_path: Path, kind: str, slope: tuple[float, float]) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(np.arange(210).reshape(5, 6, 7).astype(kind), "<", "sform", AFFINES["plain"], slope))
    same_as_itk(path)


@pytest.mark.parametrize("shape", [(6, 7), (1, 6, 7), (5, 6, 1), (1, 5, 6, 7), (2, 5, 6, 7)])
def test_axes_of_nifti_are_those_of_itk(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.nii"
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path.write_bytes(nifti(array, "<", "sform", AFFINES["plain"], (1.0, 0.0)))
    read, truth = read_image(path), sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(read.array.ravel(), truth.ravel())
    assert read.array.shape[1:] == ((1,) * (3 - len(shape)) + shape)[-3:]


@pytest.mark.usefixtures("inflating")
def test_gzip_of_several_members_and_padding(tmp_path: Path) -> None:
    content = nifti(np.arange(210, dtype=np.int16).reshape(5, 6, 7), "<", "sform", AFFINES["plain"], (1.0, 0.0))
    whole = [gzip.compress(content[:100]), gzip.compress(content[100:500]), gzip.compress(content[500:])]
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"".join(whole) + bytes(512))
    same_as_itk(path)
    path.write_bytes(b"".join(whole[:2]))
    assert "truncated" in refused(path)
    path.write_bytes(b"".join(whole)[:-4])  # the checksum is cut off
    assert "truncated" in refused(path)
    path.write_bytes(b"".join(whole)[:-8] + bytes(8))
    assert "damaged" in refused(path)


def test_a_header_that_promises_too_much_costs_no_memory(tmp_path: Path) -> None:
    content = bytearray(nifti(np.zeros((2, 3, 4), np.float64), "<", "sform", AFFINES["plain"], (1.0, 0.0)))
    struct.pack_into("<8h", content, 40, 4, 30000, 30000, 30000, 16, 1, 1, 1)
    for name, data in (("a.nii", bytes(content)), ("a.nii.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        assert "truncated" in refused(tmp_path / name)
