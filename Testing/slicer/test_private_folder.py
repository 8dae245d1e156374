"""Private folders: for their user alone, and removed when nobody is left to remove them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from MSKDSegmentationLib.private_folder import is_running, new_private_folder, sweep_stale_folders


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_nobody_else_may_look_into_it() -> None:
    folder = new_private_folder()
    assert list(folder.iterdir()) == []
    if os.name != "nt":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_folders_of_dead_processes_are_swept_and_no_others(temporary: Path, dead: int) -> None:
    kept = [new_private_folder(), temporary / "mskd-notes", temporary / f"mskd-{dead}-file", temporary / "elsewhere"]
    for folder in (kept[1], kept[3], temporary / f"mskd-{dead}-ab12_x"):
        folder.mkdir()
        (folder / "in.npy").write_bytes(b"voxels")
    kept[2].write_bytes(b"not a folder")
    link = temporary / f"mskd-{dead}-link"
    link.symlink_to(kept[3])
    sweep_stale_folders()
    assert set(temporary.iterdir()) == {*kept, link}
    assert (kept[3] / "in.npy").exists()


def test_who_runs(dead: int) -> None:
    assert is_running(os.getpid())
    assert is_running(1)
    assert not is_running(dead)
