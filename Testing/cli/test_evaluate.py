"""``mskd evaluate``: which part of a split, and what is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mskd.cli.evaluate import evaluate, split_part
from mskd.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "file", "part"),
    [
        ("runs/a/split.json", "runs/a/split.json", "test"),
        ("runs/a/split.json:validation", "runs/a/split.json", "validation"),
        ("C:/runs/split.json", "C:/runs/split.json", "test"),
        ("C:/runs/split.json:train", "C:/runs/split.json", "train"),
    ],
)
def test_a_split_is_a_file_and_a_part(text: str, file: str, part: str) -> None:
    assert split_part(text) == (Path(file), part)


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'tests' is not a part of a split; write FILE:train or FILE:validation"):
        split_part("split.json:tests")


def call(output: Path, **changes: object) -> None:
    evaluate(Path("nowhere"), "no-model", output, **changes)  # type: ignore[arg-type]


def test_existing_tables_are_kept_before_anything_is_read(tmp_path: Path) -> None:
    for name in ("table.json", "table.md"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(SettingsError, match=f"{name}: this file exists already and was kept"):
            call(tmp_path / "table.json")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_a_table_that_is_no_json_and_a_tolerance_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ends in \.json"):
        call(tmp_path / "table.csv")
    with pytest.raises(SettingsError, match="above 0 mm"):
        call(tmp_path / "table.json", tolerance=0.0)
