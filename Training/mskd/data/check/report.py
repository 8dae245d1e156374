"""What a check has found and measured, as data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mskd.data.check.classes import volumes
from mskd.data.check.finding import Finding, Severity
from mskd.data.check.grids import extents, spacings
from mskd.data.check.measure import Measured
from mskd.data.dataset import Dataset
from mskd.inference.environment import versions

SCHEMA, SCHEMA_VERSION = "mskd-check", "1.0"


@dataclass(frozen=True)
class ClassVolume:
    """A class over the cases that have it: mL, median and 5th to 95th percentile (NaN if no case has it)."""

    value: int
    name: str
    cases: int
    median_ml: float
    low_ml: float
    high_ml: float


@dataclass(frozen=True)
class Report:
    """Findings, the gravest first, and the measures of every case in the data set's order."""

    dataset: Dataset
    cases: tuple[Measured, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Number of findings of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def class_volumes(self) -> tuple[ClassVolume, ...]:
        """One row a class, in order of value."""
        rows = []
        for label in self.dataset.labels:
            found = volumes(self.cases, label.value)
            low, median, high = np.percentile(found, [5, 50, 95]) if len(found) else [math.nan] * 3
            rows.append(ClassVolume(label.value, label.name, len(found), float(median), float(low), float(high)))
        return tuple(rows)

    def grid(self) -> dict[str, str]:
        """Spacing, size, field of view (z, y, x; axes turned to LPS) and stored orientations, each in words."""
        readable = [case for case in self.cases if case.geometry is not None]
        if not readable:
            return {}
        sizes = np.array([case.geometry.shape for case in readable if case.geometry is not None])
        orientations = Counter(case.orientation for case in readable)
        return {
            "Spacing z, y, x (mm)": _range(spacings(readable)),
            "Size z, y, x (voxels)": _range(sizes),
            "Field of view z, y, x (mm)": _range(extents(readable)),
            "Stored axes x, y, z run": ", ".join(f"{name} ({count})" for name, count in orientations.most_common()),
        }

    def as_json(self) -> dict[str, Any]:
        """JSON-able; what is not a number becomes null."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "versions": versions(),
            "dataset": {
                "name": self.dataset.name,
                "path": str(self.dataset.path),
                "channels": [channel.model_dump() for channel in self.dataset.channels],
                "labels": {label.value: label.name for label in self.dataset.labels},
                "labelled": len(self.dataset.labelled),
                "unlabelled": len(self.dataset.unlabelled),
            },
            "summary": {"grid": self.grid(), "classes": [_plain(asdict(row)) for row in self.class_volumes()]},
            "findings": [asdict(finding) for finding in self.findings],
            "per_case": [_case(case) for case in self.cases],
        }


def _case(case: Measured) -> dict[str, Any]:
    record = asdict(case)
    for name in ("faults", "signature", "tile"):  # told among the findings, or not for reading
        del record[name]
    return {key: _plain(value) for key, value in record.items()}


def _plain(value: Any) -> Any:
    """Paths, tuples and NaN as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _range(rows: Sequence[Sequence[float]] | np.ndarray) -> str:
    """Median, and the range where there is one, of each column."""
    words = []
    for column in np.asarray(rows, np.float64).T:
        low, middle, high = (
            f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in np.percentile(column, [0, 50, 100])
        )
        words.append(middle if low == high else f"{middle} ({low} to {high})")
    return " x ".join(words)
