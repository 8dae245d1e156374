"""Speed does not cost accuracy: the engine's own choice against plain windows, with trained weights on real images."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import SimpleITK as sitk

pytestmark = pytest.mark.real_data

LEAST_DICE = 0.995
REGION = ((9.0, -1.0, -29.0), (44.0, 50.0, 6.0))
"""Corners (LPS, mm) of a box around the left hippocampus of the head image."""


@pytest.fixture
def guard(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "Testing" / "benchmarks"))
    return importlib.import_module("peers.guard")


@pytest.fixture
def bundled(root: Path) -> Path:
    return root / "MSKDSegmentation" / "Resources" / "Models" / "hippocampus-mr"


def test_crops_like_those_it_was_trained_on(guard: ModuleType, bundled: Path, real_data_folder: Path) -> None:
    images = sorted((real_data_folder / "Task04_Hippocampus" / "imagesTr").glob("*.nii.gz"))[::10]
    found = guard.compare(bundled, images)
    assert found["mean_dice"] >= LEAST_DICE
    assert found["least_dice"] >= 0.98


def test_a_field_larger_than_its_patch(
    guard: ModuleType, bundled: Path, real_data_folder: Path, tmp_path: Path
) -> None:
    image = sitk.ReadImage(str(real_data_folder / "volumes" / "head_t1.nii.gz"))
    corners = zip(*(image.TransformPhysicalPointToIndex(corner) for corner in REGION), strict=True)
    margin = 5  # voxels: the prepared field is then 45 x 61 x 45, the patch 40 x 56 x 40
    x, y, z = (slice(min(sides) - margin, max(sides) + margin + 1) for sides in corners)
    sitk.WriteImage(image[x, y, z], str(tmp_path / "field.nii.gz"))
    found = guard.compare(bundled, [tmp_path / "field.nii.gz"])
    assert found["whole_volumes"] == 0
    assert found["mean_dice"] >= LEAST_DICE
