"""Metrics of a run as CSV, as JSON lines and in TensorBoard."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mskd.errors import InputError
from mskd.files import write_text
from mskd.training.curves import Curves

WORTH_SAYING = 0.05  # share of the time spent waiting for data


class RunLog:
    """Writes one row per validation: step, learning rate, seconds per step, mean loss of each term, Dice of each label.

    Args:
        folder: The run's folder.
        resumed_at: Rows after this step are dropped: the resumed run will write them again.
        writes: Whether this process writes them; of several ranks one does.

    Raises:
        InputError: the rows of the run to resume cannot be read, or the new ones not written.
    """

    def __init__(self, folder: Path, resumed_at: int = 0, *, writes: bool = True) -> None:
        self._lines, self._table, self._problems = (
            folder / name for name in ("metrics.jsonl", "metrics.csv", "problems.jsonl")
        )
        self._writes = writes
        self._curves = Curves(folder / "tensorboard", resumed_at + 1)
        self.rows = [row for row in _read(self._lines) if row["step"] <= resumed_at] if resumed_at else []
        self.problems = [row for row in _read(self._problems) if row.get("step", 0) <= resumed_at]
        self._rewrite()

    def row(self, row: dict[str, Any]) -> None:
        """Append one row; all values but ``step`` are numbers or None.

        Raises:
            InputError: the disk is full or not writable; the rows before this one are still in the files.
        """
        self.rows.append(row)
        if not self._writes:
            return
        self._rewrite()
        curves = {name: value for name, value in row.items() if name != "step" and value is not None}
        with self._writing_curves():
            self._curves.add(row["step"], curves)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Show pictures in TensorBoard: name -> uint8 ``[height, width, 3]``.

        Raises:
            InputError: the disk is full or not writable.
        """
        if not self._writes:
            return
        with self._writing_curves():
            self._curves.add_images(step, images)

    @contextmanager
    def _writing_curves(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise InputError(
                f"{self._lines.parent / 'tensorboard'} cannot be written ({fault.strerror or fault}); make room, and "
                "continue from the last checkpoint with --resume."
            ) from fault

    def problem(self, problem: dict[str, Any]) -> None:
        """List a step that was skipped beside the cases that were (``problems.jsonl``)."""
        self.problems.append(problem)
        self._rewrite()

    def _rewrite(self) -> None:
        if not self._writes:
            return
        write_text(self._lines, "".join(json.dumps(row) + "\n" for row in self.rows))
        if self.problems:
            write_text(self._problems, "".join(json.dumps(row) + "\n" for row in self.problems))
        table, columns = io.StringIO(), list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self._table, table.getvalue())


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{path}: holds no readable metrics ({fault}); remove the file to resume without them."
        ) from fault


def epoch_text(row: Mapping[str, Any]) -> str:
    """One row as a line for people: validation Dice, loss by term, learning rate, seconds per step, waiting."""
    losses = {name.removeprefix("loss/"): value for name, value in row.items() if name.startswith("loss/")}
    terms = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    total = f"loss {sum(losses.values()):.3f}"
    said = [
        f"validation Dice {row['dice/mean']:.4f}" if row.get("dice/mean") is not None else "",
        f"{total} ({terms})" if len(losses) > 1 else total if losses else "",
        f"learning rate {row['learning_rate']:.2e}" if "learning_rate" in row else "",
        f"{row['seconds_per_step']:.3g} s/step" if "seconds_per_step" in row else "",
        f"{row['loader_wait']:.0%} waiting for data" if row.get("loader_wait", 0) >= WORTH_SAYING else "",
    ]
    return ", ".join(part for part in said if part)
