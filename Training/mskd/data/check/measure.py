"""What is measured of one case, and what its files alone already show to be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mskd.data.check.finding import Finding
from mskd.data.check.labels import ClassMeasure, label_digest, measure_classes
from mskd.data.check.surroundings import bare_share
from mskd.data.check.tile import draw_tile
from mskd.data.check.voxels import ChannelMeasure, measure_channel, signature
from mskd.data.dataset import Case, Dataset
from mskd.data.prepared import read_case
from mskd.errors import InputError
from mskd.image import Geometry, Image, LabelMap, read_labels
from mskd.inference.grid import Grid, make_grid
from mskd.spec import Normalization


@dataclass(frozen=True)
class _Upright:
    """Voxels as they are stored, axes turned so that z, y, x grow towards head, back and left."""

    spacing: tuple[float | None, float | None, float | None] = (None, None, None)
    orientation: str = "LPS"
    normalization: Normalization = field(default_factory=lambda: Normalization(name="none"))


@dataclass(frozen=True)
class Measured:
    """One case in numbers, small enough to keep thousands of them.

    Args:
        faults: What is wrong with its files; what could not be read is not measured.
        labelled: Whether the data set says that it has labels.
        geometry: Of the image, axes turned to LPS; None if it is unreadable.
        orientation: Directions in which the stored axes x, y and z grow, such as "RAS"; empty if unreadable.
        channels: One a channel.
        signature: float32 vector of length 1 that re-compression and noise hardly change; None if unreadable.
        classes: Label value -> measures of each value that occurs; None without usable labels.
        labels_digest: Equal for equal label maps; empty without usable labels.
        bare: Share of the labelled voxels in slices whose image is blank around them, 0 to 1.
        tile: uint8 ``[y, x, 3]`` picture with outlines of the labels, if it was asked for.
    """

    id: str
    patient: str
    labelled: bool
    faults: tuple[Finding, ...] = ()
    geometry: Geometry | None = None
    orientation: str = ""
    channels: tuple[ChannelMeasure, ...] = ()
    signature: np.ndarray | None = None
    classes: dict[int, ClassMeasure] | None = None
    labels_digest: str = ""
    bare: float = 0.0
    tile: np.ndarray | None = None


def measure_case(dataset: Dataset, case: Case, *, tile: bool) -> Measured:
    """Read one case as training would, and measure it; a fault is a finding, never an exception."""
    faults: tuple[Finding, ...] = ()
    image: Image | None
    labels: LabelMap | None
    try:
        image, labels = read_case(dataset, case)
    except InputError as fault:
        image, labels, faults = _diagnose(dataset, case, fault)
    measured = Measured(case.id, case.patient, case.labels is not None, faults)
    if image is None:
        return measured
    grid = make_grid(image.geometry, _Upright())
    channels = [grid.view(channel) for channel in image.array]
    measured = replace(
        measured,
        geometry=grid.geometry,
        orientation=_orientation(grid),
        channels=tuple(measure_channel(channel) for channel in image.array),
        signature=signature(channels),
    )
    if labels is not None:
        classes = measure_classes(image.array[0], labels.array, image.geometry)
        bare = bare_share(image.array[0], labels.array)
        measured = replace(measured, classes=classes, labels_digest=label_digest(labels.array), bare=bare)
    if tile:
        turned = None if labels is None else grid.view(labels.array)
        measured = replace(measured, tile=draw_tile(channels[0], turned, dataset.labels, grid.geometry.spacing))
    return measured


def _diagnose(
    dataset: Dataset, case: Case, refusal: InputError
) -> tuple[Image | None, LabelMap | None, tuple[Finding, ...]]:
    """Which of the files is to blame, and what of the case can be measured all the same."""
    image, labels, faults = None, None, []
    try:
        image, _ = read_case(dataset, replace(case, labels=None))
    except InputError as fault:
        faults.append(Finding("unusable-image", "error", (case.id,), str(fault)))
    if case.labels is not None:
        try:
            labels = read_labels(case.labels)
        except InputError as fault:
            faults.append(Finding("unusable-labels", "error", (case.id,), str(fault)))
    if image is None or labels is None:
        return image, None, tuple(faults)
    if labels.geometry.matches(image.geometry):
        return image, labels, (Finding("unnamed-value", "error", (case.id,), str(refusal)),)
    return image, None, (_grid_mismatch(case, image.geometry, labels.geometry, refusal),)


def _grid_mismatch(case: Case, image: Geometry, labels: Geometry, refusal: InputError) -> Finding:
    differ = [name for name in ("shape", "spacing", "origin", "direction") if not _alike(name, image, labels)]
    return Finding("grid-mismatch", "error", (case.id,), str(refusal), ", ".join(differ))


def _alike(name: str, first: Geometry, second: Geometry) -> bool:
    return bool(np.allclose(getattr(first, name), getattr(second, name), rtol=1e-4, atol=1e-4))


def _orientation(grid: Grid) -> str:
    letters = ["", "", ""]
    for turned, (axis, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
        letters[2 - axis] = ("SI", "PA", "LR")[turned][int(flip)]
    return "".join(letters)
