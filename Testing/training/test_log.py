"""Metrics in three forms that agree, survive a full disk, and are continued without loss or repetition."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mskd.errors import InputError
from mskd.training.log import RunLog, epoch_text


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


def test_pictures_lie_beside_the_curves_and_are_dropped_with_them(tmp_path: Path) -> None:
    log = make(tmp_path)
    picture = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    log.images(10, {"overlay/a": picture})
    log.images(20, {"overlay/a": picture})
    RunLog(tmp_path, resumed_at=10).images(20, {"overlay/a": picture[::-1]})
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("overlay/a")
    assert [(image.step, image.height, image.width) for image in shown] == [(10, 6, 5), (20, 6, 5)]
    decoded = [matplotlib.image.imread(io.BytesIO(image.encoded_image_string)) for image in shown]
    np.testing.assert_allclose(decoded[0][..., :3] * 255, picture, atol=0.51)
    np.testing.assert_allclose(decoded[1][..., :3] * 255, picture[::-1], atol=0.51)


def test_a_row_reads_as_a_line() -> None:
    row = {
        "step": 20,
        "learning_rate": 0.0041,
        "seconds_per_step": 0.41234,
        "loader_wait": 0.123,
        "loss/segmentation": 0.5,
        "loss/ffd": 0.25,
        "gradient/ffd": 1.0,
        "dice/mean": 0.81234,
        "dice/liver": 0.9,
    }
    assert epoch_text(row) == (
        "validation Dice 0.8123, loss 0.750 (segmentation 0.500, ffd 0.250), learning rate 4.10e-03, 0.412 s/step, "
        "12% waiting for data"
    )
    assert epoch_text({"step": 20, "dice/mean": None, "loss/segmentation": 0.5, "loader_wait": 0.01}) == "loss 0.500"


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
    with pytest.raises(InputError, match=r"tensorboard cannot be written .* continue from the last checkpoint"):
        log.images(50, {"overlay/a": np.zeros((2, 2, 3), np.uint8)})


def test_metrics_that_cannot_be_read_are_not_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1')
    with pytest.raises(InputError, match="holds no readable metrics"):
        RunLog(tmp_path, resumed_at=1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1'
