"""OpenVINO's format in 8 bits: calibrated on images, PyTorch's labels on them, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from mskd.errors import InputError, PackageError, SettingsError
from mskd.export import FORMATS, export_package, int8
from mskd.export import run as export_run
from mskd.export.int8 import MOST_IMAGES, WINDOWS, calibration_windows

LEVELS = (3.0, 4.0, 5.0)


def images(folder: Path, shape: tuple[int, ...] = (40, 30, 30), count: int = 2) -> dict[str, tuple[Path, ...]]:
    """Blobs of values between the thresholds of a threshold network, for each label."""
    folder.mkdir()
    for index in range(count):
        noise = sitk.GetImageFromArray(np.random.default_rng(index).normal(size=shape).astype(np.float32))
        smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, 3.0))
        blobs = np.clip(np.floor(4 + smooth / smooth.std()), 2, 5) + np.float32(0.5)
        sitk.WriteImage(sitk.GetImageFromArray(blobs), str(folder / f"{index}.nii.gz"))
    return {path.name: (path,) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("dim", [2, 3])
def test_labels_of_pytorch_in_8_bits(threshold_package: Callable[..., Any], tmp_path: Path, dim: int) -> None:
    package = threshold_package(LEVELS, dim, patch=(16,) * dim)
    cases, output = images(tmp_path / "images"), tmp_path / "model"
    report = export_package(package, "openvino", output, calibration=cases)
    assert report.worst_dice >= export_run.LEAST_DICE
    assert "FakeQuantize" in (output / "model.xml").read_text()
    image = calibration_windows(package, cases)[1][..., :13]  # a size that it was not calibrated on
    with torch.inference_mode():
        expected = package.load_network()(image).argmax(1)
    found = FORMATS["openvino"]().load(output)(image).argmax(1)
    assert (found == expected).float().mean() > 0.97
    assert len(np.unique(expected)) == 4


def test_windows_are_what_the_model_sees(threshold_package: Callable[..., Any], tmp_path: Path) -> None:
    cases = images(tmp_path / "images", count=MOST_IMAGES + 1)
    windows = calibration_windows(threshold_package(LEVELS, 3, patch=(16, 16, 64)), cases)
    assert {tuple(window.shape) for window in windows} == {(1, 1, 16, 16, 30)}
    assert len(windows) == 3 * MOST_IMAGES
    flat = calibration_windows(threshold_package(LEVELS, 2, patch=(16, 16)), cases)
    assert {tuple(window.shape) for window in flat} == {(1, 1, 16, 16)}
    assert len(flat) == WINDOWS * MOST_IMAGES


def test_other_labels_leave_nothing(
    threshold_package: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_run, "LEAST_DICE", 1.01)
    with pytest.raises(PackageError, match=r"8 bits '.*' overlaps .* Dice of"):
        export_package(threshold_package(LEVELS), "openvino", tmp_path / "m", calibration=images(tmp_path / "images"))
    assert not (tmp_path / "m").exists()


def test_what_cannot_be_calibrated_gets_a_sentence(threshold_package: Callable[..., Any], tmp_path: Path) -> None:
    cases, output = images(tmp_path / "images"), tmp_path / "model"
    with pytest.raises(SettingsError, match="--int8 is for the format openvino"):
        export_package(threshold_package(LEVELS), "onnx", tmp_path / "m.onnx", calibration=cases)
    two = threshold_package(LEVELS, channels=2)
    with pytest.raises(InputError, match=r"1 channels and the model .* takes 2"):
        export_package(two, "openvino", output, calibration=cases)
    with pytest.raises(InputError, match="no image"):
        export_package(threshold_package(LEVELS), "openvino", output, calibration={})
    assert not output.exists()


def test_few_windows_are_held(
    threshold_package: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "MOST_VOXELS", 4 * 16**3)
    windows = calibration_windows(
        threshold_package(LEVELS, 3, patch=(16, 16, 16)), images(tmp_path / "images", count=9)
    )
    assert len(windows) == 6  # of two images
