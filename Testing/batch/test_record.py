"""When a result is done: made from this input, by this model, with these settings, and untouched since."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles import begun

import mskd.batch.record
from mskd.batch import segment_folder
from mskd.errors import SettingsError
from mskd.inference import Region

RECORD = ".mskd/a.nii.gz.json"


def change_input(folder: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder.write("a", 1)
    return task


def change_model(folder: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return replace(task, fingerprint="0" * 64)


def change_region(folder: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return replace(task, region=Region((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def change_version(folder: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(mskd.batch.record, "__version__", "0.0.1")
    return task


def edit(folder: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with (folder.results / "a.nii.gz").open("ab") as stream:
        stream.write(b"\0")
    return task


def lose_record(folder: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    (folder.results / RECORD).unlink()
    return task


def break_record(folder: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    (folder.results / RECORD).write_text('{"sha256": 5')
    return task


def hollow_record(folder: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    (folder.results / RECORD).write_text("[]")
    return task


def test_what_is_done_is_kept_and_told_again(folder: Any, make_task: Callable[..., Any]) -> None:
    first = segment_folder(folder.cases(), make_task()).outcomes()
    before = folder.state()
    ledger = segment_folder(folder.cases(), make_task(overwrite=True))
    assert folder.state() == before
    assert begun(folder.log) == [1, 2, 3, 4, 5, 6]
    assert [outcome.entry for outcome in ledger.outcomes()] == [{**each.entry, "kept": True} for each in first]
    assert ledger.summary().endswith("(6 from before).")


def test_results_and_images_may_move(folder: Any, make_task: Callable[..., Any], tmp_path: Path) -> None:
    segment_folder(folder.cases(), make_task())
    folder.images, folder.results = (
        each.rename(tmp_path / f"moved {each.name}") for each in (folder.images, folder.results)
    )
    outcomes = segment_folder(folder.cases(), make_task()).outcomes()
    assert all(outcome.kept for outcome in outcomes)
    assert outcomes[0].entry["output"] == str(folder.results / "a.nii.gz")
    assert outcomes[0].entry["input"] == [str(folder.images / "a.nii.gz")]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (change_input, "its input has changed since"),
        (change_model, "another model made it"),
        (change_region, "another region of interest"),
        (change_version, "another version of mskd"),
        (edit, "not, or no longer, what was written here"),
        (lose_record, "not, or no longer, what was written here"),
        (break_record, "not, or no longer, what was written here"),
        (hollow_record, "not, or no longer, what was written here"),
    ],
)
def test_what_was_made_otherwise_is_in_the_way(
    folder: Any,
    make_task: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[..., Any],
    sentence: str,
) -> None:
    cases = folder.cases()[:1]
    segment_folder(cases, make_task())
    task = change(folder, make_task(), monkeypatch)
    before = folder.state()
    (outcome,) = segment_folder(cases, task).outcomes()
    assert outcome.exit_code == 2
    assert sentence in outcome.error
    assert "--overwrite" in outcome.error
    assert folder.state() == before
    if change is not change_model:
        (outcome,) = segment_folder(cases, replace(task, overwrite=True)).outcomes()
        assert outcome.exit_code == 0
        assert not outcome.kept
        assert folder.state() != before


def test_a_record_alone_is_no_result(folder: Any, make_task: Callable[..., Any]) -> None:
    segment_folder(folder.cases(), make_task())
    (folder.results / "a.nii.gz").unlink()
    segment_folder(folder.cases(), make_task())
    assert begun(folder.log) == [1, 1, 2, 3, 4, 5, 6]
    folder.check()


def test_a_record_without_its_result_leaves_the_old_result(folder: Any, make_task: Callable[..., Any]) -> None:
    """Killed between the two, under --overwrite: the old file is neither believed nor lost."""
    case = folder.cases()[0]
    segment_folder([case], make_task())
    case.output.write_text("old")
    (outcome,) = segment_folder([case], make_task()).outcomes()
    assert "no longer" in outcome.error
    assert case.output.read_text() == "old"


def test_an_image_is_never_replaced(folder: Any, make_task: Callable[..., Any]) -> None:
    folder.results = folder.images
    with pytest.raises(SettingsError, match="is an image that is to be segmented"):
        segment_folder(folder.cases(), make_task(overwrite=True))
    assert not (folder.images / ".mskd").exists()


def test_a_changed_file_of_a_series_is_seen(folder: Any, make_task: Callable[..., Any], tmp_path: Path) -> None:
    series = tmp_path / "series" / "patient"
    (series / "deep").mkdir(parents=True)
    (series / "1.dcm").write_text("one")
    (series / "deep" / "2.dcm").write_text("two")
    case = replace(folder.cases()[0], paths=(series,))
    first = mskd.batch.record.made_from(case, make_task())
    assert [name for name, *_ in first["inputs"]] == ["patient/1.dcm", "patient/deep/2.dcm"]
    os.utime(series / "deep" / "2.dcm", ns=(0, 0))
    assert mskd.batch.record.made_from(case, make_task()) != first
    assert json.loads(json.dumps(first)) == first
