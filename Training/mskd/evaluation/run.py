"""Runs a model over labelled cases through the one inference engine, and scores what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mskd.data import Case, Dataset
from mskd.data.prepared import read_case
from mskd.errors import Cancelled, InputError
from mskd.evaluation.metrics import DEFAULT_TOLERANCE_MM, score
from mskd.evaluation.table import Row, Table
from mskd.events import CancelCheck, Event, Listener, never, silent
from mskd.image import Image, LabelMap
from mskd.inference import Engine
from mskd.networks import count_parameters
from mskd.package import Package
from mskd.spec import IGNORE, Label

CaseListener = Callable[[Case, Image, LabelMap, LabelMap], None]
"""Is told of each case its image, its truth and its prediction, both in the model's label values."""


def evaluate(
    engine: Engine,
    dataset: Dataset,
    cases: Sequence[Case],
    *,
    part: str = "all labelled cases",
    tolerance: float = DEFAULT_TOLERANCE_MM,
    on_event: Listener = silent,
    on_case: CaseListener | None = None,
    cancelled: CancelCheck = never,
) -> Table:
    """Segment each case on its own grid and compare it with its labels there, without the voxels these ignore.

    Args:
        cases: Labelled cases of ``dataset``.
        part: What these cases are, in words, for the table.
        tolerance: Of the NSD, mm.

    Raises:
        InputError: no case, a case without labels, labels that are not the model's, or an unsuitable image.
        Cancelled: asked to stop.
    """
    manifest = engine.package.manifest
    pairs = match_labels(manifest.labels, dataset.labels)
    if not cases:
        raise InputError(
            f"{dataset.path}: there is no case to evaluate ({part}); choose a part that has labelled cases."
        )
    rows: list[Row] = []
    reports = []
    for index, case in enumerate(cases):
        if cancelled():
            raise Cancelled("Cancelled during evaluation; no table was written.")
        image, truth = read_case(dataset, case)
        if truth is None:
            raise InputError(f"{dataset.path}: case '{case.id}' has no labels to compare with; leave it out.")
        result = engine.run(image, cancelled=cancelled)
        counted = truth.array != IGNORE
        for ours, theirs in pairs:
            masks = (result.labels.array == ours.value) & counted, truth.array == theirs.value
            rows.append(Row(case.id, ours.name, score(*masks, truth.geometry.spacing, tolerance)))
        if on_case is not None:
            on_case(case, image, LabelMap(in_model_values(truth.array, pairs), truth.geometry), result.labels)
        reports.append(result.report)
        on_event(Event("evaluate", index + 1, len(cases)))
    about = {
        "model": describe(engine.package),
        "dataset": {"name": dataset.name, "part": part, "cases": [case.id for case in cases]},
        "device": reports[0]["device"],
        "versions": reports[0]["versions"],
        "milliseconds_per_case": float(np.mean([report["milliseconds"]["total"] for report in reports])),
    }
    return Table(tuple(rows), tuple(ours.name for ours, _ in pairs), tolerance, about)


def describe(package: Package) -> dict[str, Any]:
    """Which model a table is about."""
    return {
        "name": package.manifest.name,
        "version": package.manifest.version,
        "fingerprint": package.fingerprint,
        "parameters": count_parameters(package.load_network()),
    }


def match_labels(model: Sequence[Label], dataset: Sequence[Label]) -> list[tuple[Label, Label]]:
    """Pair the labels of model and data set by name, in the model's order; their values may differ.

    Raises:
        InputError: one side has a label that the other has not.
    """
    theirs = {label.name: label for label in dataset}
    only_model = sorted({label.name for label in model} - theirs.keys())
    only_data = sorted(theirs.keys() - {label.name for label in model})
    if only_model or only_data:
        raise InputError(
            f"The labels of the model and of the data set differ (only in the model: {_list(only_model)}; only in the "
            f"data set: {_list(only_data)}); evaluate on a data set with the same label names."
        )
    return [(label, theirs[label.name]) for label in model]


def in_model_values(truth: np.ndarray, pairs: Sequence[tuple[Label, Label]]) -> np.ndarray:
    """The data set's label values as the model's; a value that names no label (one to be ignored) stays as it is."""
    values = np.arange(256, dtype=np.uint8)
    for ours, theirs in pairs:
        values[theirs.value] = ours.value
    return values[truth]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
