"""The fingerprint of a data set: what the rules need to know of its training cases, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import SimpleITK as sitk

from mskd.data import Case, Dataset
from mskd.data.arrays import ArrayStore, open_array, read_entry
from mskd.data.prepared import read_case
from mskd.data.store import BadCases, content_key, worth
from mskd.data.workers import run_jobs
from mskd.errors import InputError
from mskd.events import CancelCheck, Event, Listener, never, silent
from mskd.image import Geometry
from mskd.inference.grid import make_grid
from mskd.spec import Normalization, Strict, validate
from mskd.training.rundata import RunInput

FORMAT = 1
SAMPLES = 20_000
"""Foreground voxels of a case that count for the intensities: every case weighs the same, as in nnU-Net."""
TURNED = RunInput((None, None, None), "LPS", Normalization(name="none"))


class LabelFacts(Strict):
    """One label in one case.

    Args:
        largest_piece: Share of the voxels in the largest face-connected piece.
        place: Where the label's centre lies between the right (0) and the left (1) end of the image.
    """

    voxels: int
    millilitres: float
    largest_piece: float
    place: float


class ChannelFacts(Strict):
    """Intensities of the labelled voxels in one channel; ``low`` and ``high`` are their 0.5 and 99.5 percentiles."""

    mean: float
    std: float
    low: float
    high: float


class CaseFacts(Strict):
    """One case. ``shape`` and ``spacing`` (mm) are (z, y, x) after turning to LPS; ``orientation`` is the file's."""

    id: str
    orientation: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: tuple[ChannelFacts, ...]
    labels: dict[str, LabelFacts]


class DataFingerprint(Strict):
    """The training cases, and the intensities of all their labelled voxels together."""

    dataset: str
    cases: tuple[CaseFacts, ...]
    channels: tuple[ChannelFacts, ...]


def measure_cases(
    dataset: Dataset,
    cases: Sequence[Case],
    store: ArrayStore | None = None,
    *,
    jobs: int = 0,
    bad_cases: BadCases = "stop",
    on_event: Listener = silent,
    cancelled: CancelCheck = never,
) -> DataFingerprint:
    """Measure the labelled cases, in order of id.

    Args:
        store: Keeps what was measured; None measures anew.
        jobs: Processes that measure; 0 chooses by the amount of work and the cores.
        bad_cases: ``skip`` leaves out a case that cannot be read; preparing the cases will list it.

    Raises:
        InputError: a faulty case, or not one that can be measured. Cancelled: asked to stop.
    """
    bare = Dataset(**{**vars(dataset), "cases": ()})
    measured: list[tuple[CaseFacts, np.ndarray]] = []
    tasks = [(_measure, (bare, case, store)) for case in cases]
    for index, found in enumerate(run_jobs(tasks, jobs or worth(cases), cancelled)):
        if not isinstance(found, str):
            measured.append(found)
        elif bad_cases == "stop":
            raise InputError(found)
        on_event(Event("measure training cases", index + 1, len(cases)))
    if not measured:
        raise InputError(f"{dataset.path}: none of the {len(cases)} training cases can be read, so nothing is planned.")
    measured.sort(key=lambda item: item[0].id)
    pooled = np.concatenate([intensities for _, intensities in measured], axis=1)
    return DataFingerprint(
        dataset=dataset.name, cases=tuple(facts for facts, _ in measured), channels=_channel_facts(pooled)
    )


def measure_case(dataset: Dataset, case: Case) -> tuple[CaseFacts, np.ndarray]:
    """One labelled case, and intensities ``[C, n]`` float32 of every so many of its labelled voxels.

    Raises:
        InputError: the case cannot be read.
    """
    image, labels = read_case(dataset, case)
    if labels is None:
        raise InputError(f"{case.id}: without labels there is nothing to measure.")
    grid = make_grid(image.geometry, TURNED)
    voxels, mask = grid.view(image.array), grid.view(labels.array)
    values = [label.value for label in dataset.labels]
    inside = np.flatnonzero(np.isin(mask, values))
    chosen = np.unravel_index(inside[:: max(1, len(inside) // SAMPLES)], mask.shape)
    intensities = np.stack([channel[chosen].astype(np.float32) for channel in voxels])
    counts = np.bincount(mask.ravel(), minlength=max(values) + 1)
    spacing = grid.oriented.spacing
    facts = CaseFacts(
        id=case.id,
        orientation=_letters(image.geometry),
        shape=grid.oriented.shape,
        spacing=spacing,
        channels=_channel_facts(intensities),
        labels={
            label.name: _label_facts(mask == label.value, prod(spacing) / 1000)
            for label in dataset.labels
            if counts[label.value]
        },
    )
    return facts, intensities


def _measure(dataset: Dataset, case: Case, store: ArrayStore | None) -> tuple[CaseFacts, np.ndarray] | str:
    """From the store where it is there; the sentence of the fault when the case cannot be read."""
    try:
        if store is None:
            return measure_case(dataset, case)
        key = content_key(dataset, case, {"measured": FORMAT, "samples": SAMPLES})
        folder = store.find(key)
        if folder is None:
            facts, intensities = measure_case(dataset, case)
        else:
            about = {**read_entry(folder).about, "id": case.id}
            return validate(CaseFacts, about, source=str(folder), error=InputError), open_array(folder, "intensities")
    except InputError as fault:
        return str(fault)
    store.put(key, {"intensities": intensities}, facts.model_dump(mode="json"))
    return facts, intensities


def _label_facts(mask: np.ndarray, millilitres: float) -> LabelFacts:
    found = np.nonzero(mask)
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in found)
    pieces = sitk.ConnectedComponent(sitk.GetImageFromArray(mask[box].astype(np.uint8)))
    sizes = np.bincount(sitk.GetArrayViewFromImage(pieces).ravel())[1:]
    count = len(found[0])
    return LabelFacts(
        voxels=count,
        millilitres=count * millilitres,
        largest_piece=float(sizes.max()) / count,
        place=(float(found[2].mean()) + 0.5) / mask.shape[2],
    )


def _channel_facts(intensities: np.ndarray) -> tuple[ChannelFacts, ...]:
    """Nothing for a case without a labelled voxel."""
    if not intensities.shape[1]:
        return ()
    facts: list[dict[str, Any]] = [
        {
            "mean": float(channel.mean(dtype=np.float64)),
            "std": float(channel.std(dtype=np.float64)),
            "low": float(np.percentile(channel, 0.5)),
            "high": float(np.percentile(channel, 99.5)),
        }
        for channel in intensities
    ]
    return tuple(ChannelFacts(**channel) for channel in facts)


def _letters(geometry: Geometry) -> str:
    return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(list(geometry.direction)))
