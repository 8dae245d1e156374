"""Which cases a folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from mskd.batch import find_cases
from mskd.errors import SettingsError


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def names(folder: Path, channels: int = 1) -> dict[str, list[str]]:
    return {name: [path.name for path in paths] for name, paths in (find_cases(folder, channels) or {}).items()}


def test_one_case_a_file(tmp_path: Path) -> None:
    fill(tmp_path, "b.nii.gz", "a.NRRD", "notes.txt", ".hidden.nii.gz", "more/c.nii")
    assert names(tmp_path) == {"a": ["a.NRRD"], "b": ["b.nii.gz"]}


def test_files_of_channels(tmp_path: Path) -> None:
    fill(tmp_path, "a_0001.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz")
    assert names(tmp_path, 2) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"], "b": ["b_0000.nii.gz"]}
    assert list(names(tmp_path, 1)) == ["a_0000", "a_0001", "b_0000"]


def test_folders_of_series(tmp_path: Path) -> None:
    fill(tmp_path, "b/1.dcm", "a/1.dcm")
    assert names(tmp_path) == {"a": ["a"], "b": ["b"]}


def test_a_series_is_one_image(tmp_path: Path) -> None:
    assert find_cases(tmp_path, 1) is None
    fill(tmp_path, "1.dcm", "2.dcm", "more/3.dcm")
    assert find_cases(tmp_path, 1) is None


def test_two_files_for_one_result(tmp_path: Path) -> None:
    fill(tmp_path, "a.nii.gz", "a.nrrd")
    with pytest.raises(SettingsError, match="two files would give the result 'a'"):
        find_cases(tmp_path, 1)
