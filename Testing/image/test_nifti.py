"""NIfTI read by ourselves is what ITK reads, byte order, scaling, packing and damage included."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import DIRECTION, refused, write

from mskd.errors import InputError
from mskd.image import nifti as nifti_module
from mskd.image import read_image
from mskd.image.nifti import check_nifti, load_nifti

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


@pytest.mark.parametrize("slope", [(1.0, 0.0), (2.5, -3.0)])
def test_a_packed_file_beside_an_unpacked_one(tmp_path: Path, slope: tuple[float, float]) -> None:
    """ITK 5.4 reads the voxels of ``a.nii`` when asked for ``a.nii.gz``."""
    stored = np.arange(210, dtype=np.int16).reshape(5, 6, 7)
    (tmp_path / "a.nii").write_bytes(nifti(stored + 1, "<", "sform", AFFINES["plain"], slope))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(stored, "<", "sform", AFFINES["plain"], slope)))
    np.testing.assert_allclose(read_image(tmp_path / "a.nii.gz").array[0], stored * slope[0] + slope[1])
    np.testing.assert_allclose(read_image(tmp_path / "a.nii").array[0], (stored + 1) * slope[0] + slope[1])


@pytest.mark.parametrize("shape", [(6, 7), (1, 6, 7), (5, 6, 1), (1, 5, 6, 7), (2, 5, 6, 7)])
def test_axes_of_nifti_are_those_of_itk(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.nii"
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path.write_bytes(nifti(array, "<", "sform", AFFINES["plain"], (1.0, 0.0)))
    read, truth = read_image(path), sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(read.array.ravel(), truth.ravel())
    assert read.array.shape[1:] == ((1,) * (3 - len(shape)) + shape)[-3:]


@pytest.mark.usefixtures("gzipping")
@pytest.mark.parametrize("chunk", [nifti_module.COMPRESSED_CHUNK, 50])
def test_gzip_of_several_members_and_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(nifti_module, "COMPRESSED_CHUNK", chunk)
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


@pytest.mark.usefixtures("gzipping")
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
