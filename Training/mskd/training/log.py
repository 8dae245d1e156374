"""Metrics of a run as CSV, as JSON lines and in TensorBoard."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Writes one row per validation: step, learning rate, seconds, mean loss of each term, Dice of each label.

    Args:
        folder: The run's folder.
        resumed_at: Rows after this step are dropped: the resumed run will write them again.
    """

    def __init__(self, folder: Path, resumed_at: int = 0) -> None:
        self._lines, self._table = folder / "metrics.jsonl", folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        if resumed_at and self._lines.is_file():
            rows = [json.loads(line) for line in self._lines.read_text(encoding="utf-8").splitlines()]
            self.rows = [row for row in rows if row["step"] <= resumed_at]
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at or None)
        self._rewrite()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def row(self, row: dict[str, Any]) -> None:
        """Append one row; all values but ``step`` are numbers or None."""
        self.rows.append(row)
        self._rewrite()
        for name, value in row.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def _rewrite(self) -> None:
        self._lines.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with self._table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
