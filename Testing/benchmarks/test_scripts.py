"""The scripts that make the committed results run, on a tiny data set, as their own documentation says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mskd.training.run import RunOptions, train
from mskd.training.settings import load_recipe


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_calibration_gives_a_weight_for_every_term(
    tiny_dataset: Path,
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = load_recipe(str(tiny_recipe), ("teacher.optimization.steps=4",))
    teacher = train(tiny_dataset, recipe, "teacher", RunOptions(tmp_path / "teacher", device="cpu"))
    arguments = [str(tiny_dataset), "--recipe", str(tiny_recipe), "--teacher", str(teacher.path)]
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *arguments, "--steps", "2", "--batches", "1"])
    load("calibrate").main()
    weights = json.loads(capsys.readouterr().out)["weights"]
    assert weights.keys() == {"kd", "ffd", "rgd"}
    assert all(weight > 0 for weight in weights.values())


def test_overhead_measures_every_kind_of_step(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "overhead.json"
    arguments = ["--recipe", str(tiny_recipe), "--rounds", "2", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["overhead.py", *arguments])
    load("overhead").main()
    result = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == result
    assert result["ratio"].keys() == {"plain", "online", "cached", "teacher"}
    assert result["ratio"]["plain"] == 1
    assert all(seconds > 0 for seconds in result["fastest_seconds"].values())


def test_reading_finds_the_same_voxels_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "reading.json"
    arguments = ["--slices", "3", "--side", "20", "--rounds", "1", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["reading.py", *arguments])
    monkeypatch.syspath_prepend(Path(__file__).parent)
    load("reading").main()
    result = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == result
    assert result["times"].keys() == {".nii", ".nii.gz", ".nrrd", "DICOM", "DICOM, JPEG"}


def make_table(dice: list[float]) -> dict:
    cases = [str(index) for index in range(len(dice))]
    return {
        "model": {"name": "student"},
        "dataset": {"cases": cases},
        "per_case": [{"case": case, "dice": value} for case, value in zip(cases, dice, strict=True)],
    }


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "no difference"), (0.02, "better"), (-0.02, "worse")])
def test_a_difference_inside_its_interval_is_none(shift: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    theirs = rng.uniform(0.8, 0.9, 40)
    ours = theirs + shift + rng.normal(0, 0.01, 40)
    compared = load("hippocampus").compare(make_table(ours.tolist()), make_table(theirs.tolist()), "2-student-alone")
    assert compared["verdict"] == verdict
    assert compared["dice_difference"] == pytest.approx(shift, abs=0.005)


def test_the_interactive_path_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "interactive.json"
    arguments = ["--shape", "150", "180", "170", "--runs", "2", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["interactive.py", *arguments])
    load("interactive").main()
    result = json.loads(output.read_text())
    assert result["network_sees"] == [40, 56, 40]  # its patch: the context around the region gives way
    assert {"prepare", "windows", "restore", "total"} <= result["phases"].keys()
    assert result["milliseconds"] > result["phases"]["total"] > 0


def test_allocators_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, allocator = tmp_path / "allocator.json", load("allocator")
    monkeypatch.setattr(allocator, "SETTINGS", {"as shipped": {}, allocator.OURS: {"TUNE": "1"}})
    arguments = ["--side", "16", "--runs", "1", "--rounds", "1", "--threads", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["allocator.py", *arguments])
    allocator.main()
    settings = json.loads(output.read_text())["settings"]
    assert settings[allocator.OURS]["wall_to_ours"] == 1
    assert all(row["processor_seconds"] > 0 and row["peak_mb"] > 0 for row in settings.values())


def test_restoring_is_measured_with_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = load("restore")
    monkeypatch.setattr(restore, "keep_freed_memory", lambda: None)
    grid = restore.grid_of((20, 30, 32))
    np.save(tmp_path / "logits.npy", restore.phantom(grid.geometry.shape, 5).numpy())
    measured = {kind: restore.measure_one(kind, tmp_path, grid, 1) for kind in ("mskd", "uncertainty")}
    assert all(found["seconds"] > 0 and found["peak_mb"] > 50 for found in measured.values())
    first, second = (np.load(tmp_path / f"{kind}.npy") for kind in measured)
    assert first.shape == (20, 30, 32)
    assert first.any()
    assert (first == second).all()
