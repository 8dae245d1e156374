"""Cases read, checked and brought to the network's grid by the very code that inference uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mskd.data.dataset import Case, Dataset
from mskd.errors import InputError
from mskd.image import Image, LabelMap, read_image, read_labels
from mskd.inference import InputSpec, prepare_labels, preprocess
from mskd.inference.familiar import image_facts
from mskd.spec import IGNORE, ImageFacts, Label

FOREGROUND_SAMPLES = 2000


@dataclass(frozen=True)
class PreparedCase:
    """One case on the network's grid.

    Args:
        image: float32 ``[C, z, y, x]``, normalised.
        labels: uint8 ``[z, y, x]``, ``IGNORE`` where voxels neither teach nor count; None for an unlabelled case.
        spacing: (z, y, x) in mm of these arrays.
        foreground: For each class that occurs, every n-th of its voxels, at most 4000, as ``[n, 3]`` (z, y, x).
        logits: A teacher's answer, float16 ``[K, z, y, x]``, or None.
        facts: What the image looked like as it came, where that was measured.

    Arrays may be read-only memory maps.
    """

    id: str
    image: np.ndarray
    labels: np.ndarray | None
    spacing: tuple[float, ...]
    foreground: dict[int, np.ndarray]
    logits: np.ndarray | None = None
    facts: ImageFacts | None = None


def read_case(dataset: Dataset, case: Case) -> tuple[Image, LabelMap | None]:
    """Read a case's files and hold them against the data set's description.

    Returns:
        The image, and the label map in the data set's label values (``IGNORE`` where voxels are to be left out).

    Raises:
        InputError: unreadable, another number of channels, a label value without a name, or two different grids.
    """
    image = read_image(case.images if len(case.images) > 1 else case.images[0])
    if image.array.shape[0] != len(dataset.channels):
        raise InputError(
            f"{case.images[0]}: {image.array.shape[0]} channels, but the data set declares {len(dataset.channels)}; "
            "mend the file, or the channels in the data set's description."
        )
    if case.labels is None:
        return image, None
    labels = read_labels(case.labels, dataset.values)
    if not labels.geometry.matches(image.geometry):
        raise InputError(
            f"{case.labels}: its grid ({_grid(labels.geometry)}) is not that of its image ({_grid(image.geometry)}); "
            "resample the label map onto the image."
        )
    return image, labels


def prepare_case(dataset: Dataset, case: Case, spec: InputSpec) -> PreparedCase:
    """Read one case and bring it to the network's grid."""
    image, labels = read_case(dataset, case)
    prepared = preprocess(image, spec)
    mask = None if labels is None else prepare_labels(labels, spec)
    facts = image_facts(image, spec)
    return PreparedCase(case.id, prepared.array, mask, prepared.geometry.spacing, _foreground(mask), facts=facts)


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
        if value not in (0, IGNORE):
            voxels = np.argwhere(mask == value)
            found[int(value)] = voxels[:: max(1, len(voxels) // FOREGROUND_SAMPLES)]
    return found


def _grid(geometry: object) -> str:
    return ", ".join(f"{name} {getattr(geometry, name)}" for name in ("shape", "spacing", "origin"))
