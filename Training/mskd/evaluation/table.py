"""A table of results: every case and label, and over the cases mean, spread, interval and how many they were."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from mskd.evaluation.metrics import Scores

SCHEMA, SCHEMA_VERSION = "mskd-evaluation", "1.0"
METRICS = tuple(field.name for field in fields(Scores))
UNITS = {"dice": "1", "hd95": "mm", "nsd": "1", "volume_error_ml": "mL", "volume_error_percent": "%"}
POLICY = (
    "An organ that the truth has and the prediction misses, or the other way round, counts with Dice 0, NSD 0 and HD95 "
    "equal to the diagonal of the image; an organ in neither is left out of the means and counted as absent. "
    "The volume error is predicted minus true. HD95 is the larger of the two directed 95th percentiles."
)
MEAN = "mean"  # the row over all labels
RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One label in one case."""

    case: str
    label: str
    scores: Scores


@dataclass(frozen=True)
class Summary:
    """One metric of one label over the cases that have it.

    Args:
        std: Standard deviation over cases (of the sample; 0 for a single case).
        interval: 95 % bootstrap percentile interval of the mean (2000 resamples of the cases, fixed seed).
        cases: Number of cases in the mean.
        absent: Number of cases left out because the organ is in neither truth nor prediction.
    """

    label: str
    metric: str
    mean: float
    std: float
    interval: tuple[float, float]
    cases: int
    absent: int


@dataclass(frozen=True)
class Table:
    """Results of one model on one set of cases.

    Args:
        rows: Cases in order, and in each the labels in order.
        labels: Label names in order of value.
        tolerance: Of the NSD, mm.
        about: What was measured: model, data set, split, device, versions, milliseconds (JSON-able).
    """

    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    tolerance: float
    about: Mapping[str, Any]

    def values(self, label: str, metric: str) -> np.ndarray:
        """One value per case, NaN where absent; ``label`` "mean" averages each case over the labels it has."""
        names = self.labels if label == MEAN else (label,)
        columns = [[getattr(row.scores, metric) for row in self.rows if row.label == name] for name in names]
        grid = np.asarray(columns, np.float64)
        counts = np.isfinite(grid).sum(axis=0)
        return np.where(counts > 0, np.nansum(grid, axis=0) / np.maximum(counts, 1), np.nan)

    def summary(self, label: str, metric: str) -> Summary:
        """Mean and spread over cases of one metric of one label."""
        values = self.values(label, metric)
        kept = values[np.isfinite(values)]
        if not kept.size:
            return Summary(label, metric, math.nan, math.nan, (math.nan, math.nan), 0, len(values))
        draws = np.random.default_rng(0).integers(0, kept.size, (RESAMPLES, kept.size))
        low, high = np.percentile(kept[draws].mean(axis=1), [2.5, 97.5])
        spread = float(kept.std(ddof=1)) if kept.size > 1 else 0.0
        interval = (float(low), float(high))
        return Summary(label, metric, float(kept.mean()), spread, interval, kept.size, len(values) - kept.size)

    def summaries(self) -> list[Summary]:
        """Every label and the mean of all labels, every metric."""
        return [self.summary(label, metric) for label in (*self.labels, MEAN) for metric in METRICS]

    def as_json(self) -> dict[str, Any]:
        """JSON-able; what is not a number becomes null."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            **self.about,
            "labels": list(self.labels),
            "tolerance_mm": self.tolerance,
            "units": UNITS,
            "policy": POLICY,
            "summary": [_without_nan(asdict(summary)) for summary in self.summaries()],
            "per_case": [
                {"case": row.case, "label": row.label, **_without_nan(asdict(row.scores))} for row in self.rows
            ],
        }

    def as_markdown(self) -> str:
        """A heading, one row a label, and the policy."""
        cases = len({row.case for row in self.rows})
        lines = [
            f"# {self.about['model']['name']} on {self.about['dataset']['name']}",
            "",
            f"{cases} cases ({self.about['dataset']['part']}), mean ± standard deviation over cases.",
            "",
            *markdown_rows({"": self}, with_model=False),
            "",
            POLICY,
        ]
        return "\n".join(lines) + "\n"


def markdown_rows(tables: Mapping[str, Table], *, with_model: bool = True) -> list[str]:
    """A Markdown table of several models, one row a model and label."""
    first = next(iter(tables.values()))
    head = ["Label", "Dice", "HD95 (mm)", f"NSD ({first.tolerance:g} mm)", "Volume error (mL)", "Volume error (%)"]
    head = [*(["Model"] if with_model else []), *head, "Cases"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for model, table in tables.items():
        for label in (*table.labels, MEAN):
            found = [table.summary(label, metric) for metric in METRICS]
            figures = [_figure(entry, digits) for entry, digits in zip(found, (3, 1, 3, 1, 1), strict=True)]
            absent = f" (+{found[0].absent} absent)" if found[0].absent else ""
            cells = [*([model] if with_model else []), label, *figures, f"{found[0].cases}{absent}"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _figure(found: Summary, digits: int) -> str:
    return f"{found.mean:.{digits}f} ± {found.std:.{digits}f}" if found.cases else "-"


def _without_nan(record: dict[str, Any]) -> dict[str, Any]:
    return {key: _null(value) for key, value in record.items()}


def _null(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
