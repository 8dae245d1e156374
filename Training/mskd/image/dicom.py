"""A folder of DICOM files as one volume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mskd.errors import InputError

SERIES_DESCRIPTION = "0008|103e"
IMAGE_POSITION = "0020|0032"
IMAGE_ORIENTATION = "0020|0037"
UNEVEN = 0.05
FEWEST_SLICES = 8
"""Of a thread: below, starting it costs more than it saves."""
MOST_THREADS = 16


@dataclass(frozen=True)
class _Block:
    """Neighbouring slices, and where their headers say that they lie."""

    image: sitk.Image
    positions: list[str]
    orientation: str


def series_in(folder: Path) -> tuple[str, ...]:
    """UIDs of the DICOM series among the files directly in ``folder``."""
    return tuple(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))


def read_series(folder: Path) -> tuple[sitk.Image, NDArray[np.generic] | None, tuple[int, ...]]:
    """Read the one DICOM series in ``folder``.

    Returns:
        An image that says how the grid lies; the voxels ``[z, y, x]`` where it does not hold them; the grid's size
        (x, y, z).

    Raises:
        InputError: no series, several (they are listed), files that cannot be decoded, or slices that are not evenly
            spaced (one is missing, or two share a place).
    """
    files = _files_of_the_series(folder)
    if len(files) == 1:
        image = _execute(folder, sitk.ImageFileReader(), files[0])
        return image, None, image.GetSize()
    blocks = _read_blocks(folder, files)
    image = blocks[0].image
    if image.GetDimension() > 3:
        raise InputError(
            f"{folder}: each file of this DICOM series holds several frames; give a folder with one of them."
        )
    _evenly_spaced(folder, blocks)
    if len(blocks) == 1:
        return image, None, image.GetSize()
    voxels = np.concatenate([sitk.GetArrayViewFromImage(block.image) for block in blocks])
    return _whole_grid(folder, files), voxels, (*image.GetSize()[:2], len(files))


def _files_of_the_series(folder: Path) -> tuple[str, ...]:
    """In the order of their places."""
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))  # of the first series
    if files and len(files) == len(os.listdir(folder)):
        return files
    series = series_in(folder)
    if not series:
        raise InputError(f"{folder}: this folder holds no DICOM series; give the folder of the image files themselves.")
    if len(series) > 1:
        listed = "; ".join(_describe(folder, uid) for uid in series)
        raise InputError(
            f"{folder}: this folder holds {len(series)} DICOM series ({listed}); give a folder with one of them."
        )
    return files


def _read_blocks(folder: Path, files: Sequence[str]) -> list[_Block]:
    """The series in neighbouring parts, one a thread, since decoding takes longer than reading."""
    count = max(1, min(MOST_THREADS, _processors(), len(files) // FEWEST_SLICES))
    ends = [len(files) * index // count for index in range(count + 1)]
    parts = [files[first:last] for first, last in pairwise(ends)]
    with ThreadPoolExecutor(count) as pool:
        blocks = list(pool.map(lambda part: _read_block(folder, part), parts))
    # ITK takes the first file's kind of number for all; slices of another size, and colours, are refused as a whole.
    kinds = {(block.image.GetPixelID(), block.image.GetSize()[:2]) for block in blocks}
    if len(kinds) == 1 and blocks[0].image.GetNumberOfComponentsPerPixel() == 1:
        return blocks
    return [_read_block(folder, files)]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_block(folder: Path, files: Sequence[str]) -> _Block:
    reader = sitk.ImageSeriesReader()
    reader.MetaDataDictionaryArrayUpdateOn()
    image = _execute(folder, reader, files)

    def tag(index: int, key: str) -> str:
        return reader.GetMetaData(index, key) if reader.HasMetaDataKey(index, key) else ""

    return _Block(image, [tag(index, IMAGE_POSITION) for index in range(len(files))], tag(0, IMAGE_ORIENTATION))


def _whole_grid(folder: Path, files: Sequence[str]) -> sitk.Image:
    """The grid that ITK gives the whole series: from its first and last slice, which are all that is in it."""
    ends = _execute(folder, sitk.ImageSeriesReader(), [files[0], files[-1]])
    x, y, z = ends.GetSpacing()
    ends.SetSpacing((x, y, z / (len(files) - 1)))
    return ends


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


def _evenly_spaced(folder: Path, blocks: list[_Block]) -> None:
    positions = [position for block in blocks for position in block.positions]
    if not all(positions):
        return
    places = np.array([_numbers(position) for position in positions])
    rows = _numbers(blocks[0].orientation) if blocks[0].orientation else None
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
