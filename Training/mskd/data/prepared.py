"""Cases read, checked and brought to the network's grid by the very code that inference uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mskd.data.dataset import Case, Dataset
from mskd.errors import Cancelled, InputError
from mskd.events import CancelCheck, Event, Listener, never, silent
from mskd.image import Image, LabelMap, read_image, read_labels
from mskd.inference import InputSpec, prepare_labels, preprocess
from mskd.spec import Label

FOREGROUND_SAMPLES = 2000
IGNORE = 255
"""Marks voxels in ``PreparedCase.labels`` that neither teach nor count."""


@dataclass(frozen=True)
class PreparedCase:
    """One case on the network's grid.

    Args:
        image: float32 ``[C, z, y, x]``, normalised.
        labels: uint8 ``[z, y, x]``, or None for an unlabelled case; ``IGNORE`` marks what is not known.
        spacing: (z, y, x) in mm of these arrays.
        foreground: For each class that occurs, every n-th of its voxels, at most 4000, as ``[n, 3]`` (z, y, x).
        logits: A teacher's, float16 ``[K, z, y, x]``, or None.
    """

    id: str
    image: np.ndarray
    labels: np.ndarray | None
    spacing: tuple[float, ...]
    foreground: dict[int, np.ndarray]
    logits: np.ndarray | None = None


def read_case(dataset: Dataset, case: Case) -> tuple[Image, LabelMap | None]:
    """Read a case's files and hold them against the data set's description.

    Raises:
        InputError: unreadable, another number of channels, a label value without a name, or two different grids.
    """
    image = read_image(case.images if len(case.images) > 1 else case.images[0])
    if image.array.shape[0] != len(dataset.channels):
        raise InputError(
            f"{case.images[0]}: {image.array.shape[0]} channels, but the data set declares {len(dataset.channels)}; "
            "mend the file or 'modality' in dataset.json."
        )
    if case.labels is None:
        return image, None
    labels = read_labels(case.labels)
    if not labels.geometry.matches(image.geometry):
        raise InputError(
            f"{case.labels}: its grid ({_grid(labels.geometry)}) is not that of its image ({_grid(image.geometry)}); "
            "resample the label map onto the image."
        )
    unnamed = set(np.unique(labels.array).tolist()) - {0} - {label.value for label in dataset.labels}
    if unnamed:
        named = {label.value: label.name for label in dataset.labels}
        raise InputError(
            f"{case.labels}: voxels have the value {min(unnamed)}, which the data set does not name "
            f"(it names {named}); name it in dataset.json or relabel the file."
        )
    return image, labels


def prepare_case(dataset: Dataset, case: Case, spec: InputSpec) -> PreparedCase:
    """Read one case and bring it to the network's grid."""
    image, labels = read_case(dataset, case)
    prepared = preprocess(image, spec)
    mask = None if labels is None else prepare_labels(labels, spec)
    return PreparedCase(case.id, prepared.array, mask, prepared.geometry.spacing, _foreground(mask))


def prepare_cases(
    dataset: Dataset,
    cases: Sequence[Case],
    spec: InputSpec,
    *,
    phase: str = "prepare",
    on_event: Listener = silent,
    cancelled: CancelCheck = never,
) -> list[PreparedCase]:
    """Prepare cases in order, telling progress.

    Raises:
        InputError: the first faulty case; Cancelled: asked to stop.
    """
    prepared = []
    for index, case in enumerate(cases):
        if cancelled():
            raise Cancelled("Cancelled while the data were prepared; nothing was written.")
        prepared.append(prepare_case(dataset, case, spec))
        on_event(Event(phase, index + 1, len(cases)))
    return prepared


def require_every_class(cases: Sequence[PreparedCase], labels: Sequence[Label]) -> None:
    """Refuse a training set in which a class never occurs: the network could only learn to leave it out.

    Raises:
        InputError: names the first such class.
    """
    present = {value for case in cases for value in case.foreground}
    for label in labels:
        if label.value not in present:
            raise InputError(
                f"'{label.name}' (value {label.value}) occurs in none of the {len(cases)} training cases; add cases "
                "that show it, choose another split seed, or remove it from the data set's labels."
            )


def _foreground(mask: np.ndarray | None) -> dict[int, np.ndarray]:
    if mask is None:
        return {}
    found = {}
    for value in np.unique(mask):
        if value:
            voxels = np.argwhere(mask == value)
            found[int(value)] = voxels[:: max(1, len(voxels) // FOREGROUND_SAMPLES)]
    return found


def _grid(geometry: object) -> str:
    return ", ".join(f"{name} {getattr(geometry, name)}" for name in ("shape", "spacing", "origin"))
