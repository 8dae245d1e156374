"""``mskd segment FOLDER``: results, what a second run does, and what signals and kills leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.cli import main
from mskd.image import read_labels

THRESHOLDS = (10.5, 20.5)
PATIENCE = 120


@pytest.fixture(scope="module")
def model(threshold_package: Callable[..., Any]) -> str:
    return str(threshold_package(THRESHOLDS).path)


def write_image(path: Path, seed: int = 0, shape: tuple[int, ...] = (9, 12, 14)) -> np.ndarray:
    """A random volume; returns the labels the model must give it."""
    voxels = np.random.default_rng(seed).integers(1, 41, shape).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    return np.digitize(voxels, THRESHOLDS)


def run(*words: object) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        main(["segment", *map(str, words)])
    return int(ended.value.code or 0)


def seen(folder: Path) -> set[str]:
    """Names of what is not hidden."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_folder_of_cases_survives_a_bad_one(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, results = tmp_path / "in", tmp_path / "results"
    folder.mkdir()
    truths = {name: write_image(folder / f"{name}.nii.gz", seed) for seed, name in enumerate("abc")}
    (folder / "b.nii.gz").write_text("broken")
    (folder / "notes.txt").write_text("not a case")
    report = tmp_path / "report.json"
    assert run(folder, "--model", model, "--output", results, "--report", report) == 3
    assert seen(results) == {"a.nii.gz", "c.nii.gz"}
    for name in "ac":
        np.testing.assert_array_equal(read_labels(results / f"{name}.nii.gz").array, truths[name])
    shown = capsys.readouterr()
    assert "2 of 3 cases" in shown.out
    assert "mskd: b: " in shown.err
    entries = {entry["case"]: entry for entry in json.loads(report.read_text())["cases"]}
    assert entries["b"]["exit_code"] == 3
    assert "volumes_ml" in entries["a"]


def test_folder_in_slicers_format(tmp_path: Path, model: str) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.nrrd")
    assert run(tmp_path / "in", "--model", model, "-o", tmp_path / "out", "--format", "seg.nrrd") == 0
    assert seen(tmp_path / "out") == {"a.seg.nrrd"}


def test_folder_of_channels(tmp_path: Path, threshold_package: Callable[..., Any]) -> None:
    (tmp_path / "in").mkdir()
    truth = write_image(tmp_path / "in" / "a_0000.nii.gz", 0)
    write_image(tmp_path / "in" / "a_0001.nii.gz", 1)
    package = threshold_package(THRESHOLDS, channels=2)
    assert run(tmp_path / "in", "--model", package.path, "-o", tmp_path / "out") == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.nii.gz").array, truth)


def test_two_files_for_one_result(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.nii.gz")
    write_image(tmp_path / "in" / "a.nrrd")
    assert run(tmp_path / "in", "--model", model, "-o", tmp_path / "out") == 2
    assert "two files" in capsys.readouterr().err


def test_the_same_command_does_the_rest(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, results, report = tmp_path / "in", tmp_path / "results", tmp_path / "report.json"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        write_image(folder / f"{name}.nii.gz", seed)
    (folder / "b.nii.gz").write_text("broken")
    assert run(folder, "--model", model, "-o", results) == 3
    before = state(results)
    write_image(folder / "b.nii.gz", 1)
    assert run(folder, "--model", model, "-o", results, "--report", report) == 0
    assert before.items() <= state(results).items()
    assert "3 of 3 cases are in" in (shown := capsys.readouterr()).out
    assert "(2 from before)" in shown.out
    entries = json.loads(report.read_text())["cases"]
    assert [(entry["case"], entry.get("kept", False)) for entry in entries] == [("a", True), ("b", False), ("c", True)]
    assert all("volumes_ml" in entry for entry in entries)


def test_other_settings_replace_nothing_unasked(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.nii.gz")
    command = (tmp_path / "in", "--model", model, "-o", tmp_path / "out")
    assert run(*command) == 0
    before = state(tmp_path / "out")
    assert run(*command, "--roi", "-6,-2,-9,-4,1,5") == 2
    assert "it was made for another region of interest" in capsys.readouterr().err
    assert state(tmp_path / "out") == before
    assert run(*command, "--roi", "-6,-2,-9,-4,1,5", "--overwrite") == 0
    assert 0 < np.count_nonzero(read_labels(tmp_path / "out" / "a.nii.gz").array) < 500


def state(results: Path) -> dict[str, tuple[int, int]]:
    """What changes when a result is written again."""
    return {name: ((results / name).stat().st_ino, (results / name).stat().st_mtime_ns) for name in seen(results)}


@pytest.fixture(scope="module")
def slow(threshold_package: Callable[..., Any]) -> str:
    """A model that sees a volume in hundreds of small windows."""
    package = threshold_package(THRESHOLDS)
    spec = package.manifest.network
    arguments = {**spec.arguments, "norm": "instance"}
    return str(threshold_package(THRESHOLDS, network=spec.model_copy(update={"arguments": arguments})).path)


@pytest.fixture
def begin(root: Path, tmp_path: Path, slow: str) -> Any:
    """Starts the command on six cases, and comes back when two are done."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "in").mkdir()
    for name in "abcdef":
        write_image(tmp_path / "in" / f"{name}.nrrd", shape=(40, 40, 40))

    def start(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mskd", "segment", str(tmp_path / "in"), "--model", slow, *options]
        environment = {**os.environ, "PYTHONPATH": str(root / "Training"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, "-o", str(tmp_path / "out")],
            env=environment,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        started.append(process)
        wait_for(lambda: (tmp_path / "out").is_dir() and len(seen(tmp_path / "out")) >= 2)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Processes that a process started."""
    return [
        int(place.name)
        for place in Path("/proc").glob("[0-9]*")
        if (place / "stat").is_file() and (place / "stat").read_text().rpartition(")")[2].split()[1] == str(process.pid)
    ]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_and_begun_again(tmp_path: Path, slow: str, begin: Any, jobs: str) -> None:
    process, results = begin("--jobs", jobs), tmp_path / "out"
    family = children(process)
    assert len(family) >= (2 if jobs == "2" else 0)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{each}").exists() for each in family))
    before = state(results)
    assert 2 <= len(before) < 6
    assert (results / ".mskd" / "writing").is_dir()
    assert run(tmp_path / "in", "--model", slow, "-o", results) == 0
    assert seen(results) == {f"{name}.nii.gz" for name in "abcdef"}
    assert before.items() <= state(results).items()
    assert {path.name for path in (results / ".mskd").iterdir()} == {f"{name}.nii.gz.json" for name in "abcdef"}
    for name in "abcdef":
        read_labels(results / f"{name}.nii.gz")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_to_all_processes(tmp_path: Path, begin: Any, number: signal.Signals, code: int) -> None:
    process, results = begin("--jobs", "2"), tmp_path / "out"
    os.killpg(process.pid, number)
    _, shown = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, shown
    assert "Traceback" not in shown
    done = seen(results)
    assert 2 <= len(done) < 6
    assert f"{len(done)} of 6 cases are in" in shown
    assert not (results / ".mskd" / "writing").exists()
    for name in done:
        read_labels(results / name)
