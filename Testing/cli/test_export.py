"""``mskd export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.cli import main


def run(*words: object) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return int(ended.value.code or 0)


def test_export(threshold_package: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "model.pt"
    assert run("export", threshold_package().path, "--to", "torchscript", "--output", output) == 0
    assert "100 % of the labels are equal" in capsys.readouterr().out
    assert [path.name for path in output.parent.iterdir()] == ["model.pt"]


def test_8_bits(threshold_package: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Calibrated on a folder of images of two channels."""
    voxels = np.random.default_rng(0).integers(0, 4, (20, 20, 20)).astype(np.float32) + 0.5
    (tmp_path / "images").mkdir()
    for channel in range(2):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "images" / f"a_000{channel}.nii.gz"))
    package, output = threshold_package((1.0, 2.0, 3.0), channels=2), tmp_path / "model"
    assert run("export", package.path, "--to", "openvino", "--int8", tmp_path / "images", "--output", output) == 0
    assert "of the labels are equal" in capsys.readouterr().out
    assert (output / "model.xml").is_file()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--to", "onnxx", "--output", "a.onnx"), 2, "did you mean 'onnx'"),
        (("--to", "torchscript", "--output", "a.onnx"), 2, "ends in .pt"),
        (("--to", "torchscript", "--output", "taken.pt"), 2, "exists already"),
        (("--to", "torchscript", "--output", "taken.pt/a.pt"), 2, "not a folder"),
        (("--to", "monai-bundle", "--output", "taken.pt", "--overwrite"), 2, "was not made by an export"),
        (("--to", "torchscript"), 2, "--output"),
        (("--to", "openvino", "--output", "m", "--int8", "absent"), 3, "not a folder"),
        (("--to", "torchscript", "--output", "a.pt", "--int8", "."), 2, "--int8 is for the format openvino"),
    ],
)
def test_wrong_words_get_a_sentence(
    threshold_package: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.pt").write_text("kept")
    assert run("export", threshold_package().path, *words) == code
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken.pt"]
    assert (tmp_path / "taken.pt").read_text() == "kept"


def test_no_such_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", tmp_path / "nothing", "--to", "onnx", "--output", tmp_path / "a.onnx") == 4
    assert "There is no model" in capsys.readouterr().err


def test_a_network_that_computes_otherwise_ends_with_4(
    threshold_package: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mskd.export import run as export_run

    monkeypatch.setattr(export_run, "TOLERANCE", -1.0)
    assert run("export", threshold_package().path, "--to", "torchscript", "--output", tmp_path / "a.pt") == 4
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
