"""What a run's folder says of it, finished or not: a part that is missing is named, never a reason to say nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mskd.data import Split
from mskd.errors import InputError, PackageError
from mskd.package import Package, open_package

PARTS = ("validation", "test")


@dataclass(frozen=True)
class Record:
    """A run as its folder shows it.

    Args:
        name: What the report calls it.
        settings: Its settings.json.
        plan: Its plan.json; empty where there is none.
        rows: Its metrics, one row a validation.
        problems: Cases and steps that it skipped, as it wrote them down.
        split: Which case belongs to which part, where it can be read.
        package: The model, where there is one.
        missing: One sentence for each thing that the folder lacks.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    plan: Mapping[str, Any]
    rows: list[dict[str, Any]]
    problems: list[dict[str, Any]]
    split: Split | None
    package: Package | None
    missing: tuple[str, ...]

    def setting(self, path: str) -> Any:
        """A value of settings.json by its dotted path ("recipe.split.seed"); None where there is none."""
        value: Any = self.settings
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def role(self, path: str) -> Any:
        """The same, below the network that this run trains ("optimization.steps")."""
        return self.setting(f"recipe.{self.setting('role')}.{path}")

    @property
    def step(self) -> int:
        """The last step that was validated."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def seconds(self) -> float:
        """What all steps took, as the rows' own seconds per step say."""
        before = [0, *(row["step"] for row in self.rows)]
        return sum(
            (row["step"] - since) * (row.get("seconds_per_step") or 0.0)
            for since, row in zip(before, self.rows, strict=False)
        )


def read_record(folder: Path, name: str = "") -> Record:
    """Read a run's folder.

    Raises:
        InputError: this is not the folder of a run.
    """
    settings = _object(folder / "settings.json")
    if settings is None or "recipe" not in settings:
        raise InputError(
            f"{folder}: no run lies here (no readable settings.json); give the --output of mskd train or mskd distill."
        )
    missing: list[str] = []
    rows = [row for row in _lines(folder / "metrics.jsonl", missing) if isinstance(row.get("step"), int)]
    if not rows:
        missing.append("There are no metrics yet: they are written at each validation.")
    problems = _lines(folder / "problems.jsonl", missing)
    return Record(
        name=name or folder.resolve().name,
        folder=folder,
        settings=settings,
        plan=_object(folder / "plan.json") or {},
        rows=rows,
        problems=problems,
        split=_split(folder / "split.json", missing),
        package=_package(folder / "model", missing),
        missing=tuple(missing),
    )


def _object(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _lines(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    """JSON lines; a line that cannot be read is left out and counted."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, ValueError) as fault:
        missing.append(f"{path.name} cannot be read ({fault}).")
        return []
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append(None)
    kept = [entry for entry in found if isinstance(entry, dict)]
    if len(kept) < len(found):
        missing.append(f"{path.name}: {len(found) - len(kept)} of {len(found)} lines cannot be read and are left out.")
    return kept


def _split(path: Path, missing: list[str]) -> Split | None:
    try:
        return Split.load(path)
    except InputError as fault:
        missing.append(str(fault))
        return None


def _package(path: Path, missing: list[str]) -> Package | None:
    if not path.exists():
        missing.append(
            "There is no model package yet: the run is still going, or it was stopped before its end (continue it with "
            "--resume). So nothing could be segmented: the curves are all there is."
        )
        return None
    try:
        return open_package(path)
    except PackageError as fault:
        missing.append(f"The model package cannot be used: {fault}")
        return None
