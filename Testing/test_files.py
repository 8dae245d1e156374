"""Files written whole or not at all, and places refused before there is anything to write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mskd.errors import InputError, SettingsError
from mskd.files import replacing, require_new_file, require_writable_folder, write_text


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    write_text(target, "new \N{GREEK SMALL LETTER MU}")
    assert target.read_text(encoding="utf-8") == "new \N{GREEK SMALL LETTER MU}"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_fault_half_way_keeps_what_was_there(tmp_path: Path, fault: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as temporary:
            temporary.write_text("ne")
            raise fault

    with pytest.raises((InputError, KeyboardInterrupt)) as raised:
        write()
    if isinstance(raised.value, InputError):
        assert "No space left on device" in str(raised.value)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")
    with pytest.raises(SettingsError, match=r"--output .*file is not a folder"):
        require_writable_folder(tmp_path / "file" / "run", "--output")


def test_a_folder_that_is_not_writable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable_folder(tmp_path / "not" / "there" / "yet", "--output")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(SettingsError, match="is not writable; choose another place"):
        require_writable_folder(tmp_path / "not" / "there" / "yet", "--output")


def test_a_file_that_is_there_is_kept_unless_overwriting(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("a.json", "dangling"):
        with pytest.raises(SettingsError, match="exists already and was kept"):
            require_new_file(tmp_path / name, "--report", overwrite=False)
    require_new_file(tmp_path / "a.json", "--report", overwrite=True)
    require_new_file(tmp_path / "new.json", "--report", overwrite=False)
    with pytest.raises(SettingsError, match="this is a folder"):
        require_new_file(tmp_path, "--report", overwrite=True)
