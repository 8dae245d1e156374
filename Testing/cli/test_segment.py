"""``mskd segment`` as a person meets it: results, sentences, exit codes, and nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.cli import main
from mskd.image import read_image, read_labels
from mskd.inference import Engine

THRESHOLDS = (10.5, 20.5)


@pytest.fixture(scope="module")
def model(threshold_package: Callable[..., Any]) -> str:
    return str(threshold_package(THRESHOLDS).path)


def write_image(path: Path, seed: int = 0, shape: tuple[int, ...] = (9, 12, 14)) -> np.ndarray:
    """A random volume; returns the labels the model must give it."""
    voxels = np.random.default_rng(seed).integers(1, 41, shape).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetDirection((0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, str(path))
    return np.digitize(voxels, THRESHOLDS)


def run(*words: object) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        main(["segment", *map(str, words)])
    return int(ended.value.code or 0)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    sentences = [line for line in text.splitlines() if line.startswith("mskd: ")]
    assert sentences, text
    return sentences[-1]


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".nrrd"])
def test_one_image(tmp_path: Path, model: str, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_image(tmp_path / "in.nii.gz")
    output, report = tmp_path / f"out{suffix}", tmp_path / "report.json"
    assert run(tmp_path / "in.nii.gz", "--model", model, "--output", output, "--report", report) == 0
    labels = read_labels(output)
    np.testing.assert_array_equal(labels.array, truth)
    told = json.loads(report.read_text())
    assert told["volumes_ml"]["above 1"] == pytest.approx((truth == 1).sum() * 6 / 1000)
    assert {"read", "prepare", "windows", "restore", "write", "total"} <= set(told["milliseconds"])
    assert {"versions", "device", "peak_memory_mb", "plan"} <= set(told)
    assert "above 1: " in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"in.nii.gz", output.name, "report.json"}


@pytest.mark.parametrize("region", [False, True])
def test_the_engine_hears_of_the_image_before_it_is_read(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, region: bool
) -> None:
    write_image(tmp_path / "in.nii.gz")
    told: list[Any] = []
    monkeypatch.setattr(Engine, "warm_up", lambda engine, geometry: told.append(geometry))
    more = ["--roi", "-6,-2,-14,-4,5,13"] if region else []
    run(tmp_path / "in.nii.gz", "--model", model, "--output", tmp_path / "out.nrrd", *more)
    assert told == ([] if region else [read_image(tmp_path / "in.nii.gz").geometry])


def test_region(tmp_path: Path, model: str) -> None:
    write_image(tmp_path / "in.nrrd")
    output = tmp_path / "out.nrrd"
    assert run(tmp_path / "in.nrrd", "--model", model, "-o", output, "--roi", "-6,-2,-14,-4,5,13") == 0
    found = read_labels(output)
    assert 0 < np.count_nonzero(found.array) < 400
    for index in np.argwhere(found.array):
        x, y, z = found.geometry.point(tuple(index))
        assert 2 <= x <= 6.001
        assert 4 <= y <= 14.001
        assert 5 <= z <= 13


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["absent.nii.gz"], 3, "does not exist"),
        (["text.nii.gz"], 3, "not an image"),
        (["in.nii.gz", "--model", "absent"], 4, "There is no model"),
        (["in.nii.gz", "--output", "out.png"], 2, "must end in"),
        (["in.nii.gz", "--output", "precious.nrrd"], 2, "exists already"),
        (["in.nii.gz", "--report", "precious.nrrd"], 2, "exists already"),
        (["in.nii.gz", "--report", "in.nii.gz", "--overwrite"], 2, "the input or the output too"),
        (["in.nii.gz", "--report", "out.nrrd"], 2, "the input or the output too"),
        (["in.nii.gz", "--report", "empty"], 2, "this is a folder"),
        (["in.nii.gz", "--report", "text.nii.gz/report.json"], 2, "is not a folder"),
        (["in.nii.gz", "--roi", "1,2,3"], 2, "six numbers"),
        (["in.nii.gz", "--roi", "900,901,0,1,0,1"], 3, "holds no voxel"),
        (["in.nii.gz", "in.nii.gz"], 3, "2 channels"),
        (["in.nii.gz", "--jobs", "2"], 2, "this is one image"),
        (["in.nii.gz", "--device", "cpu,auto"], 2, "this is one image"),
        (["in.nii.gz", "--scheduler", "tcp://localhost:1"], 2, "this is one image"),
        (["in.nii.gz", "--scheduler", "tcp://localhost:1", "--jobs", "2"], 2, "for the cluster to say"),
        (["in.nii.gz", "--device", "gpu"], 2, "There is no device 'gpu'"),
        (["in.nii.gz", "--device", "cpu,cpu"], 2, "names a device twice"),
        (["empty"], 3, "no DICOM series"),
    ],
)
def test_sentences_and_exit_codes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "in.nii.gz")
    (tmp_path / "text.nii.gz").write_text("hello")
    (tmp_path / "precious.nrrd").write_text("precious")
    (tmp_path / "empty").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    defaults = {"--model": model, "--output": "out.nrrd"}
    for option, value in defaults.items():
        if option not in words:
            words = [*words, option, value]
    assert run(*words) == code
    assert part in complaint(capsys)
    assert (tmp_path / "precious.nrrd").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_report_s_folder_is_made(tmp_path: Path, model: str) -> None:
    write_image(tmp_path / "in.nrrd")
    report = tmp_path / "new" / "deep" / "report.json"
    assert run(tmp_path / "in.nrrd", "--model", model, "-o", tmp_path / "out.nrrd", "--report", report) == 0
    assert json.loads(report.read_text())["output"] == str(tmp_path / "out.nrrd")


def test_overwrite(tmp_path: Path, model: str) -> None:
    truth = write_image(tmp_path / "in.nrrd")
    (tmp_path / "out.nrrd").write_text("old")
    assert run(tmp_path / "in.nrrd", "--model", model, "-o", tmp_path / "out.nrrd", "--overwrite") == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "out.nrrd").array, truth)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("many", [False, True])
def test_interrupt_leaves_nothing(
    root: Path, tmp_path: Path, threshold_package: Callable[..., Any], many: bool
) -> None:
    package = threshold_package(THRESHOLDS)
    arguments = {**package.manifest.network.arguments, "norm": "instance"}
    spec = package.manifest.network.model_copy(update={"arguments": arguments})
    slow = threshold_package(THRESHOLDS, network=spec)  # thousands of windows of 16 x 16 x 16
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.nrrd", shape=(140, 140, 140))
    source, output = (tmp_path / "in", tmp_path / "out") if many else (tmp_path / "in" / "a.nrrd", tmp_path / "o.nrrd")
    environment = {**os.environ, "PYTHONPATH": str(root / "Training"), "OMP_NUM_THREADS": "1"}
    program = (
        "import os, signal, threading, time\n"
        "from mskd.inference import engine\n"
        "plain = engine.stream\n"
        "def stream(*words, **options):\n"
        "    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    return plain(*words, **options)\n"
        "engine.stream = stream\n"
        "from mskd.cli import main\n"
        f"main(['segment', {str(source)!r}, '--model', {str(slow.path)!r}, '--output', {str(output)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 130, done.stderr
    assert "cancelled" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "a.nrrd"]


def test_uncertainty_lies_on_the_image(tmp_path: Path, model: str) -> None:
    write_image(tmp_path / "in.nii.gz")
    output, doubt = tmp_path / "out.nii.gz", tmp_path / "doubt.nrrd"
    assert run(tmp_path / "in.nii.gz", "--model", model, "--output", output, "--uncertainty", doubt) == 0
    image, entropy = sitk.ReadImage(str(tmp_path / "in.nii.gz")), sitk.ReadImage(str(doubt))
    assert entropy.GetSize() == image.GetSize()
    assert entropy.GetDirection() == pytest.approx(image.GetDirection())
    voxels, percent = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(entropy)
    assert 0 < percent.max() <= 100
    # The network is least sure next to its thresholds.
    assert percent[np.isin(voxels, (10, 11, 20, 21))].mean() > percent[np.isin(voxels, (1, 40))].mean()


@pytest.mark.parametrize("name", ["out.nii.gz", "in.nii.gz", "doubt.seg.nrrd", "doubt.txt"])
def test_uncertainty_goes_nowhere_else(
    tmp_path: Path, model: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in.nii.gz")
    before = (tmp_path / "in.nii.gz").read_bytes()
    words = (tmp_path / "in.nii.gz", "--model", model, "--output", tmp_path / "out.nii.gz", "--overwrite")
    assert run(*words, "--uncertainty", tmp_path / name) == 2
    assert name in complaint(capsys)
    assert (tmp_path / "in.nii.gz").read_bytes() == before
    assert not (tmp_path / "out.nii.gz").exists()
