"""Metrics in three forms that agree, survive a full disk, and are continued without loss or repetition."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mskd.errors import InputError
from mskd.training.log import RunLog


def curve(folder: Path) -> list[tuple[int, float]]:
    """The points that TensorBoard shows."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(point.step, point.value) for point in events.Scalars("dice/mean")]


def make(folder: Path) -> RunLog:
    log = RunLog(folder)
    for step in (10, 20, 30):
        log.row({"step": step, "dice/mean": step / 64, "dice/absent": None})
    return log


def test_the_three_forms_agree(tmp_path: Path) -> None:
    make(tmp_path)
    wanted = [(10, 10 / 64), (20, 20 / 64), (30, 30 / 64)]
    assert curve(tmp_path) == wanted
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["dice/mean"]) for row in lines] == wanted
    with (tmp_path / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(int(row["step"]), float(row["dice/mean"])) for row in table] == wanted
    assert {row["dice/absent"] for row in table} == {""}


def test_a_resumed_run_drops_what_it_will_write_again_and_keeps_the_rest(tmp_path: Path) -> None:
    make(tmp_path)
    log = RunLog(tmp_path, resumed_at=20)
    log.row({"step": 30, "dice/mean": 0.5, "dice/absent": None})
    assert curve(tmp_path) == [(10, 10 / 64), (20, 20 / 64), (30, 0.5)]
    assert [row["step"] for row in log.rows] == [10, 20, 30]


def test_a_full_disk_costs_no_earlier_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"metrics.jsonl cannot be written \(No space left on device\)"):
        log.row({"step": 40, "dice/mean": 1.0})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
    with pytest.raises(InputError, match=r"tensorboard cannot be written .* continue from the last checkpoint"):
        log.row({"step": 50, "dice/mean": 1.0})


def test_metrics_that_cannot_be_read_are_not_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1')
    with pytest.raises(InputError, match="holds no readable metrics"):
        RunLog(tmp_path, resumed_at=1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1'
