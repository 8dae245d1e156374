"""A folder of cases whose right labels are known."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

sys.path.append(str(Path(__file__).parent))  # for other processes, too: they inherit it

THRESHOLDS = (10.5, 20.5)


@dataclass
class Folder:
    """Images and their truth."""

    images: Path
    results: Path
    log: Path
    truths: dict[str, np.ndarray] = field(default_factory=dict)

    def cases(self) -> list[Any]:
        from mskd.batch import Case, find_cases

        found = find_cases(self.images, 1) or {}
        return [Case(name, paths, self.results / f"{name}.nii.gz") for name, paths in found.items()]

    def write(self, name: str, number: int) -> None:
        """An image known by its first voxel, 1 to 40."""
        voxels = np.random.default_rng(number).integers(1, 41, (5, 6, 7)).astype(np.int16)
        voxels.flat[0] = number
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(self.images / f"{name}.nii.gz"))
        self.truths[name] = np.digitize(voxels, THRESHOLDS)

    def check(self, *without: str) -> None:
        """Every result is there and right, but those, and nothing else."""
        from mskd.image import read_labels

        names = {name: truth for name, truth in self.truths.items() if name not in without}
        assert {path.name for path in self.results.iterdir()} == {".mskd", *(f"{name}.nii.gz" for name in names)}
        assert {path.name for path in (self.results / ".mskd").iterdir()} == {f"{name}.nii.gz.json" for name in names}
        for name, truth in names.items():
            np.testing.assert_array_equal(read_labels(self.results / f"{name}.nii.gz").array, truth)

    def state(self) -> dict[str, tuple[int, int]]:
        """What changes when a result is written again."""
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in self.results.glob("*.nii.gz")}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Six images, a to f, known by the numbers 1 to 6."""
    made = Folder(tmp_path / "images", tmp_path / "results", tmp_path / "log")
    made.images.mkdir()
    made.log.mkdir()
    for number, name in enumerate("abcdef", 1):
        made.write(name, number)
    return made


@pytest.fixture(scope="session")
def model(threshold_package: Callable[..., Any]) -> Any:
    """The package that labels those images."""
    return threshold_package(THRESHOLDS)


@pytest.fixture
def make_task(folder: Folder, model: Any) -> Callable[..., Any]:
    """Makes a task with watched options."""
    from doubles import WatchedOptions

    from mskd.batch import Task

    def make(overwrite: bool = False, **options: Any) -> Task:
        watched = WatchedOptions(str(model.path), "cpu", log=str(folder.log), **options)
        return Task(watched, model.fingerprint, folder.results, overwrite=overwrite)

    return make
