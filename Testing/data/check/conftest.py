"""A clean data set in which faults are planted, one at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from mskd.data.phantom import make_phantom_dataset

LEFT, RIGHT = 6, 4


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve coarse phantoms whose kidneys are told apart: 4 is the right one, 6 the left one."""
    folder = make_phantom_dataset(tmp_path_factory.mktemp("clean") / "set", 12, shape=(20, 24, 24), spacing=(8, 8, 8))
    for path in (folder / "labelsTr").iterdir():
        image = sitk.ReadImage(str(path))
        labels = sitk.GetArrayFromImage(image)
        middle = labels.shape[2] // 2
        labels[..., middle:][labels[..., middle:] == RIGHT] = LEFT  # x grows to the left
        split = sitk.GetImageFromArray(labels)
        split.CopyInformation(image)
        sitk.WriteImage(split, str(path))
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] |= {str(RIGHT): "right kidney", str(LEFT): "left kidney"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(clean, tmp_path / "set"))
