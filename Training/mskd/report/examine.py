"""Runs a finished run's model over cases through the one engine, and keeps what the page shows of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskd.data import Case, Dataset, open_dataset
from mskd.data.prepared import read_case
from mskd.errors import InputError
from mskd.evaluation.confusion import Confusion, Counts, count_voxels, pooled
from mskd.evaluation.metrics import DEFAULT_TOLERANCE_MM
from mskd.evaluation.overlay import overlay, png
from mskd.evaluation.run import evaluate
from mskd.evaluation.table import MEAN, Table
from mskd.events import CancelCheck, Listener, never, silent
from mskd.image import Image, LabelMap
from mskd.inference import Engine
from mskd.package import Package
from mskd.report.record import Record

MARGIN_MM = 15.0
RANKS = {1: ("Only case",), 2: ("Best", "Worst")}


@dataclass(frozen=True)
class Example:
    """One case as a picture (PNG); ``rank`` says why this one."""

    rank: str
    case: str
    picture: bytes


@dataclass(frozen=True)
class Examination:
    """What a model did on the cases of one part of the split."""

    part: str
    table: Table
    confusion: Confusion
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Looking:
    """How to examine a model.

    Args:
        part: "validation" or "test".
        dataset: Where the data set lies now; None takes the place that the run wrote down.
        tolerance: Of the NSD, mm.
    """

    part: str = "validation"
    dataset: Path | None = None
    device: str = "auto"
    tolerance: float = DEFAULT_TOLERANCE_MM
    on_event: Listener = silent
    cancelled: CancelCheck = never


class _Keeper:
    """Told of each case, it counts voxels and keeps the label maps, compressed: a volume takes under a megabyte."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.counts: list[Counts] = []
        self._maps: dict[str, tuple[bytes, bytes]] = {}

    def __call__(self, case: Case, image: Image, truth: LabelMap, prediction: LabelMap) -> None:
        self.counts.append(count_voxels(prediction.array, truth.array, self._classes))
        packed = [zlib.compress(found.array.astype(np.uint8).tobytes(), 1) for found in (truth, prediction)]
        self._maps[case.id] = (packed[0], packed[1])

    def maps(self, case: str, image: Image) -> tuple[LabelMap, LabelMap]:
        """(truth, prediction) of a case, on its image's grid."""
        arrays = [
            np.frombuffer(zlib.decompress(packed), np.uint8).reshape(image.geometry.shape)
            for packed in self._maps[case]
        ]
        return LabelMap(arrays[0], image.geometry), LabelMap(arrays[1], image.geometry)


def examine(record: Record, looking: Looking) -> Examination | str:
    """Segment the cases of one part with the run's model.

    Returns:
        What came out; or one sentence that says why nothing did: no such case, or a data set that cannot be read.
    """
    if record.package is None or record.split is None:
        return ""  # the record says why
    ids = record.split.test if looking.part == "test" else record.split.validation
    if not ids:
        return f"The split has no {looking.part} case, so nothing was segmented."
    place = looking.dataset or Path(str(record.setting("dataset")))
    if looking.dataset is None and not place.is_dir():
        return f"The data set is no longer at {place}, so nothing was segmented; say with --dataset where it lies now."
    try:
        dataset = open_dataset(place)
        return _examine(record.package, dataset, dataset.select(ids), looking)
    except InputError as fault:
        return f"The {looking.part} cases could not be segmented: {fault}"


def _examine(package: Package, dataset: Dataset, cases: Sequence[Case], looking: Looking) -> Examination:
    labels = package.manifest.labels
    keeper = _Keeper(len(labels) + 1)
    table = evaluate(
        Engine(package, looking.device),
        dataset,
        cases,
        part=looking.part,
        tolerance=looking.tolerance,
        on_event=looking.on_event,
        on_case=keeper,
        cancelled=looking.cancelled,
    )
    examples = []
    for rank, case in ranked(table, cases):
        image, _ = read_case(dataset, case)
        truth, prediction = keeper.maps(case.id, image)
        rows = {"truth": truth, "found": prediction}
        figure = overlay(image, truth, rows, labels, margin=MARGIN_MM, show="errors")
        examples.append(Example(rank, case.id, png(figure)))
    return Examination(looking.part, table, pooled(keeper.counts, table.labels), tuple(examples))


def ranked(table: Table, cases: Sequence[Case]) -> list[tuple[str, Case]]:
    """The best, the median and the worst case by mean Dice, each once; cases without any organ have no rank."""
    dice = table.values(MEAN, "dice")
    order = [int(index) for index in np.argsort(-dice, kind="stable") if np.isfinite(dice[index])]
    if not order:
        return []
    if len(order) in RANKS:
        return list(zip(RANKS[len(order)], (cases[index] for index in order), strict=True))
    chosen = {"Best": order[0], "Median": order[len(order) // 2], "Worst": order[-1]}
    return [(rank, cases[index]) for rank, index in chosen.items()]
