"""How long an image takes to read, as a file and as a folder of DICOM slices, beside SimpleITK.

    python Testing/benchmarks/reading.py --image chest.nii.gz --output Testing/benchmarks/results/speed/reading.json

The image is written anew in every format (DICOM as it is, and compressed by JPEG without loss), with ``--slices``
slices, repeated from its first one where it has fewer. Without ``--image`` it is noise around discs. Every round reads
every format by both, in turning order, from the system's cache; seconds are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from peers.machine import machine, public, usable_cores, versions

from mskd.files import write_text
from mskd.image import read_image
from mskd.inference import tune_process

SPACING = (0.78, 0.78, 1.0)
CT = "1.2.840.10008.5.1.4.1.1.2"
UID = "1.2.826.0.1.3680043.8.498.1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=512, help="of the discs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    tune_process()
    voxels = discs(options.slices, options.side) if options.image is None else slices_of(options.image, options.slices)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(written(voxels, Path(folder)), options.rounds)
    result = {
        "seconds": found,
        "times": {name: round(both["simpleitk"] / both["mskd"], 2) for name, both in found.items()},
        "voxels": list(voxels.shape),
        "rounds": options.rounds,
        "machine": machine(usable_cores()),
        "versions": versions(),
        "command": " ".join(["python", "Testing/benchmarks/reading.py", *public(sys.argv[1:])]),
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if options.output is not None:
        write_text(options.output, text)


def discs(slices: int, side: int) -> NDArray[np.int16]:
    """Soft tissue in air, with the noise of a CT."""
    axis = np.linspace(-1, 1, side)
    body = np.where(axis[:, None] ** 2 + axis**2 < 0.6, 40, -1000)
    return (body + np.random.default_rng(0).normal(0, 15, (slices, side, side))).astype(np.int16)


def slices_of(path: Path, count: int) -> NDArray[np.int16]:
    """The first slices of an image, from the first one again where they are too few."""
    voxels = read_image(path).array[0]
    if voxels.dtype != np.int16:
        raise SystemExit(f"{path} holds {voxels.dtype}; give an image of int16, as CT is.")
    return np.take(voxels, np.arange(count) % len(voxels), axis=0)


def written(voxels: NDArray[np.int16], folder: Path) -> dict[str, Path]:
    """Name -> file or folder."""
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING)
    suffixes = (".nii", ".nii.gz", ".nrrd")  # each with a name of its own: ITK would read a.nii for a.nii.gz
    paths = {suffix: folder / f"image{number}{suffix}" for number, suffix in enumerate(suffixes)}
    for path in paths.values():
        sitk.WriteImage(image, str(path), useCompression=path.suffix != ".nii")
    series = {"DICOM": False, "DICOM, JPEG": True}
    for number, (name, compressed) in enumerate(series.items()):
        paths[name] = folder / f"series{number}"
        write_series(image, paths[name], compressed)
    return paths


def write_series(image: sitk.Image, folder: Path, compressed: bool) -> None:
    """One file a slice."""
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(compressed)
    writer.SetCompressor("JPEG")  # lossless; ITK's other way for DICOM is JPEG 2000
    for index in range(image.GetDepth()):
        one = image[:, :, index]
        tags = {
            "0008|0016": CT,
            "0008|0018": f"{UID}.{index + 1}",
            "0008|0060": "CT",
            "0020|000d": f"{UID}.0.1",
            "0020|000e": f"{UID}.0.2",
            "0020|0013": str(index + 1),
            "0020|0032": f"0\\0\\{index * SPACING[2]}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "0",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            one.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{index:04}.dcm"))
        writer.Execute(one)


def with_simpleitk(path: Path) -> NDArray[Any]:
    """What most programs do."""
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
        return sitk.GetArrayFromImage(reader.Execute())
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def measure(paths: dict[str, Path], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds by file and reader; both must find the same voxels."""
    readers: dict[str, Callable[[Path], NDArray[Any]]] = {
        "mskd": lambda path: read_image(path).array[0],
        "simpleitk": with_simpleitk,
    }
    taken: dict[str, dict[str, list[float]]] = {name: {reader: [] for reader in readers} for name in paths}
    for turn in range(-1, rounds):  # the first one fills the system's cache
        for name, path in paths.items():
            order = list(readers)[:: 1 if turn % 2 else -1]
            found = {}
            for reader in order:
                start = time.perf_counter()
                found[reader] = readers[reader](path)
                if turn >= 0:
                    taken[name][reader].append(time.perf_counter() - start)
            assert turn >= 0 or np.array_equal(found["mskd"], found["simpleitk"]), name
    return {
        name: {reader: round(statistics.median(each), 4) for reader, each in both.items()}
        for name, both in taken.items()
    }


if __name__ == "__main__":
    main()
