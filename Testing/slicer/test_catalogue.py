"""The list of models, from files that anybody may have written."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_models import write_model

from MSKDSegmentationLib.catalogue import bundled_folder, choose, find_models, model_folders, read_entry
from MSKDSegmentationLib.errors import SegmentationError


def test_a_model_is_listed_with_what_the_panel_shows(tmp_path: Path) -> None:
    write_model(tmp_path, "toy")
    (entry,) = find_models([tmp_path])
    assert (entry.name, entry.title, entry.problem) == ("toy", "Toy toy", "")
    assert entry.labels == ("Left kidney", "Spleen", "Lesion")
    assert entry.modalities == ("MR",)


@pytest.mark.parametrize(
    ("changes", "view"),
    [
        ({"patch": [40, 56, 48], "spacing": [1.0, 0.5, 2.0], "orientation": "LPS"}, (96, 28, 40)),
        ({"patch": [40, 56, 48], "spacing": [1.0, 0.5, 2.0], "orientation": "SRA"}, (28, 40, 96)),
        ({"patch": [40, 56, 48], "spacing": [None, 0.5, 2.0], "orientation": "LPS"}, None),
        ({"patch": [56, 48], "spacing": [1.0, 0.5, 2.0], "orientation": "LPS"}, None),
        ({}, None),
    ],
)
def test_what_a_model_sees_at_once_is_in_mm_along_the_body(tmp_path: Path, changes: dict, view: tuple | None) -> None:
    assert read_entry(write_model(tmp_path, "toy", **changes)).view == view


@pytest.mark.parametrize(
    "changes", [{"patch": 3}, {"patch": ["a"] * 3, "spacing": [1, 1, 1]}, {"patch": [1] * 3, "spacing": [1] * 3}]
)
def test_a_patch_that_is_none_is_a_problem(tmp_path: Path, changes: dict) -> None:
    assert "is not a model description" in read_entry(write_model(tmp_path, "t", orientation="ABCD", **changes)).problem


def test_bundled_models_come_first_and_win_over_a_namesake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, own = tmp_path / "module", tmp_path / "own"
    bundled = write_model(bundled_folder(module), "toy")
    write_model(own, "toy")
    write_model(own, "another")
    monkeypatch.setenv("MSKD_MODELS", str(own))
    entries = find_models(model_folders(module))
    assert [entry.name for entry in entries] == ["toy", "another"]
    assert entries[0].path == bundled


def test_folders_that_are_not_there_hold_no_models(tmp_path: Path) -> None:
    assert find_models([tmp_path / "no"]) == []


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"name": "x"}', '{"name":"x","title":"x","channels":3}', "\0"])
def test_a_file_that_is_no_manifest_is_listed_with_its_problem(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "model.json").write_text(text)
    (entry,) = find_models([tmp_path])
    assert entry.name == "broken"
    assert "is not a model description" in entry.problem


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema_version": "2.0"}, "schema version 2.0, this extension reads 1.x"),
        ({"channels": [{"name": "a", "modality": "MR"}, {"name": "b", "modality": "MR"}]}, "takes 2 images"),
    ],
)
def test_a_model_that_cannot_be_used_says_why(tmp_path: Path, changes: dict, problem: str) -> None:
    entry = read_entry(write_model(tmp_path, "toy", **changes))
    assert problem in entry.problem
    with pytest.raises(SegmentationError, match=problem[:20]):
        choose([entry], "toy")


def test_a_model_is_chosen_by_name_or_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "toy")
    assert choose(find_models([tmp_path]), "toy").path == folder
    assert choose([], folder).name == "toy"


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    write_model(tmp_path, "toy")
    with pytest.raises(SegmentationError, match="these names: toy"):
        choose(find_models([tmp_path]), "liver")
