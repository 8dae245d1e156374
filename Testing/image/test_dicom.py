"""A folder of DICOM slices, read in several threads, and the folders that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import refused, write_series

from mskd.image import dicom, read_image


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


def colours(index: int) -> sitk.Image:
    return sitk.GetImageFromArray(np.full((6, 5, 3), index, np.uint8), isVector=True)


def frames(index: int) -> sitk.Image:
    return sitk.GetImageFromArray(np.full((4, 6, 5), index, np.int16))


@pytest.mark.parametrize("slices", [3, 30])
@pytest.mark.parametrize(("content", "sentence"), [(colours, "holds vector of 8-bit"), (frames, "several frames")])
def test_slices_that_are_no_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slices: int, content: object, sentence: str
) -> None:
    monkeypatch.setattr(dicom, "_processors", lambda: 3)
    write_series(tmp_path / "odd", "1.2.9", [3.0 * index for index in range(slices)], content=content)
    assert sentence in refused(tmp_path / "odd")


def test_other_files_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", "1.2.9", [3.0 * index for index in range(4)])
    alone = read_image(tmp_path / "ct")
    (tmp_path / "ct" / "readme.txt").write_text("exported yesterday")
    beside = read_image(tmp_path / "ct")
    np.testing.assert_array_equal(beside.array, alone.array)
    assert beside.geometry == alone.geometry
