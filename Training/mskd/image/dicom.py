"""A folder of DICOM files as one volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mskd.errors import InputError

SERIES_DESCRIPTION = "0008|103e"
IMAGE_POSITION = "0020|0032"
IMAGE_ORIENTATION = "0020|0037"
UNEVEN = 0.05


def series_in(folder: Path) -> tuple[str, ...]:
    """UIDs of the DICOM series among the files directly in ``folder``."""
    return tuple(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))


def read_series(folder: Path) -> sitk.Image:
    """Read the one DICOM series in ``folder``.

    Raises:
        InputError: no series, several (they are listed), files that cannot be decoded, or slices that are not evenly
            spaced (one is missing, or two share a place).
    """
    series = series_in(folder)
    if not series:
        raise InputError(f"{folder}: this folder holds no DICOM series; give the folder of the image files themselves.")
    if len(series) > 1:
        listed = "; ".join(_describe(folder, uid) for uid in series)
        raise InputError(
            f"{folder}: this folder holds {len(series)} DICOM series ({listed}); give a folder with one of them."
        )
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    if len(files) == 1:
        return _execute(folder, sitk.ImageFileReader(), files[0])
    reader = sitk.ImageSeriesReader()
    reader.MetaDataDictionaryArrayUpdateOn()
    image = _execute(folder, reader, files)
    _evenly_spaced(folder, reader, len(files))
    return image


def _execute(folder: Path, reader: sitk.ImageFileReader | sitk.ImageSeriesReader, files: object) -> sitk.Image:
    try:
        if isinstance(reader, sitk.ImageSeriesReader):
            reader.SetFileNames(files)
        else:
            reader.SetFileName(files)
        return reader.Execute()
    except RuntimeError as fault:
        reason = " ".join(str(fault).strip().splitlines()[-1].split())
        raise InputError(f"{folder}: the DICOM series cannot be decoded ({reason}); export it again.") from fault


def _describe(folder: Path, uid: str) -> str:
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
    reader = sitk.ImageFileReader()
    reader.SetFileName(files[0])
    reader.ReadImageInformation()
    named = reader.HasMetaDataKey(SERIES_DESCRIPTION)
    name = reader.GetMetaData(SERIES_DESCRIPTION).strip() if named else "without description"
    return f"{name}, {len(files)} files, UID {uid}"


def _evenly_spaced(folder: Path, reader: sitk.ImageSeriesReader, count: int) -> None:
    if not all(reader.HasMetaDataKey(index, IMAGE_POSITION) for index in range(count)):
        return
    places = np.array([_numbers(reader.GetMetaData(index, IMAGE_POSITION)) for index in range(count)])
    rows = _numbers(reader.GetMetaData(0, IMAGE_ORIENTATION)) if reader.HasMetaDataKey(0, IMAGE_ORIENTATION) else None
    normal = np.cross(rows[:3], rows[3:]) if rows else np.array([0.0, 0.0, 1.0])
    gaps = np.abs(np.diff(places @ normal))
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > UNEVEN * max(usual, 1e-3):
        raise InputError(
            f"{folder}: slices {worst + 1} and {worst + 2} of the DICOM series are {gaps[worst]:g} mm apart where "
            f"{usual:g} mm is usual; a slice is missing or doubled, so export the series again."
        )


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split("\\")]
