"""The hidden folder: one run at a time, and no litter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mskd.batch.workspace import has_room, workspace, writing_folder
from mskd.errors import InputError, SettingsError


def test_litter_of_a_killed_run_is_removed_and_nothing_is_left(tmp_path: Path) -> None:
    results = tmp_path / "new" / "results"
    writing_folder(results).mkdir(parents=True)
    (writing_folder(results) / "half.nii.gz").touch()
    (results / "precious.nii.gz").touch()
    with workspace(results):
        assert list(writing_folder(results).iterdir()) == []
        assert has_room(results)
        (writing_folder(results) / "half.nii.gz").touch()
    assert list(results.iterdir()) == [results / "precious.nii.gz"]


def test_records_stay(tmp_path: Path) -> None:
    with workspace(tmp_path):
        (tmp_path / ".mskd" / "a.json").touch()
    assert list(tmp_path.rglob("*")) == [tmp_path / ".mskd", tmp_path / ".mskd" / "a.json"]


def test_one_run_at_a_time(root: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom mskd.batch.workspace import workspace\n"
        f"with workspace(pathlib.Path({str(tmp_path)!r})):\n    print('in', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(root / "Training")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(SettingsError, match="Another run is writing"), workspace(tmp_path):
            pass
        assert writing_folder(tmp_path).is_dir()
    finally:
        other.kill()
        other.communicate()
    with workspace(tmp_path):  # the system took the lock back
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"), workspace(tmp_path / "file"):
        pass
    assert not has_room(tmp_path / "absent")
