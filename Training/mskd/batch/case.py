"""One case: read, segment, write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mskd.errors import Cancelled
from mskd.events import CancelCheck, Event, Listener, never, silent
from mskd.image import read_image, write_labels, write_volume
from mskd.image.geometry import Image, LabelMap
from mskd.image.write import check_output
from mskd.inference import Engine, Region
from mskd.spec import Label


@dataclass(frozen=True)
class Case:
    """A name, the files of its channels (or its DICOM folder), and where its result goes."""

    name: str
    paths: tuple[Path, ...]
    output: Path

    def absolute(self) -> Case:
        """The same for a process that runs in another folder."""
        return Case(self.name, tuple(path.absolute() for path in self.paths), self.output.absolute())


@dataclass(frozen=True)
class Loaded:
    """A case whose image was read."""

    case: Case
    image: Image
    milliseconds: float


@dataclass(frozen=True)
class Made:
    """A case whose labels were found."""

    case: Case
    labels: LabelMap
    names: tuple[Label, ...]
    report: dict[str, Any]
    uncertainty: Image | None = None


def segment_image(
    engine: Engine,
    case: Case,
    region: Region | None = None,
    *,
    overwrite: bool = False,
    uncertainty: Path | None = None,
    listen: Listener = silent,
    cancelled: CancelCheck = never,
) -> dict[str, Any]:
    """Segment one image by itself; returns its report.

    ``uncertainty`` names the volume to write the entropy of each voxel to, in percent of the largest possible.

    Raises:
        MSKDError: whatever stands in the way; then nothing was written.
    """
    check_output(case.output, overwrite=overwrite)
    listen(Event("read", 0, 1))
    loaded = read_case(case)
    listen(Event("read", 1, 1))
    made = compute_case(engine, loaded, region, listen, cancelled, uncertainty=uncertainty is not None)
    report = write_case(made, case.output, overwrite=overwrite)
    if uncertainty is not None and made.uncertainty is not None:
        write_volume(uncertainty, made.uncertainty, overwrite=overwrite)
    return report


def read_case(case: Case) -> Loaded:
    """The image from its files."""
    with _timed() as milliseconds:
        image = read_image(case.paths[0] if len(case.paths) == 1 else case.paths)
    return Loaded(case, image, milliseconds[0])


def compute_case(
    engine: Engine,
    loaded: Loaded,
    region: Region | None,
    listen: Listener,
    cancelled: CancelCheck,
    *,
    uncertainty: bool = False,
) -> Made:
    """The labels of an image."""
    result = engine.run(loaded.image, region, listen, cancelled, uncertainty=uncertainty)
    if cancelled():
        raise Cancelled("The segmentation was cancelled; nothing was written.")
    phases = {"read": loaded.milliseconds, **result.report["milliseconds"]}
    phases["total"] = round(phases["total"] + loaded.milliseconds, 2)
    report = {**result.report, "milliseconds": phases}
    return Made(loaded.case, result.labels, tuple(engine.manifest.labels), report, result.uncertainty)


def write_case(made: Made, place: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the labels to ``place``, which is the case's output or will become it; returns the report of the case."""
    with _timed() as milliseconds:
        write_labels(place, made.labels, made.names, overwrite=overwrite)
    phases = dict(made.report["milliseconds"])
    total = round(phases.pop("total") + milliseconds[0], 2)
    return {
        "input": [str(path) for path in made.case.paths],
        "output": str(made.case.output),
        **made.report,
        "milliseconds": {**phases, "write": milliseconds[0], "total": total},
    }


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Holds the milliseconds that the block took, once it has ended."""
    milliseconds: list[float] = []
    start = time.perf_counter()
    yield milliseconds
    milliseconds.append(round(1000 * (time.perf_counter() - start), 2))
