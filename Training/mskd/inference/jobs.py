"""What the worker does for one request: arrays from a file, through an engine that stays warm, to a file."""

from __future__ import annotations

import os
import re
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mskd.errors import Cancelled, InputError
from mskd.events import CancelCheck, Event, Listener
from mskd.image.geometry import Geometry, Image
from mskd.inference.engine import Engine
from mskd.inference.grid import CONTEXT_MM
from mskd.inference.messages import Run
from mskd.inference.region import Region
from mskd.package import open_package
from mskd.package.manifest import MANIFEST
from mskd.package.package import find_package

WARM_ENGINES = 2
PRIVATE_FOLDER = re.compile(r"mskd-\d+-\w+")


class Engines:
    """The last engines used, with their weights loaded."""

    def __init__(self) -> None:
        self._warm: OrderedDict[tuple[str, ...], Engine] = OrderedDict()

    def get(self, model: str, device: str) -> Engine:
        """The engine for a model that has not changed on disk since, or a new one."""
        place = find_package(model).resolve()
        stat = (place / MANIFEST if place.is_dir() else place).stat()
        key = (str(place), device, str(stat.st_mtime_ns), str(stat.st_size))
        if key not in self._warm:
            while len(self._warm) >= WARM_ENGINES:
                self._warm.popitem(last=False)
            self._warm[key] = Engine(open_package(place), device)
        self._warm.move_to_end(key)
        return self._warm[key]


def run_job(request: Run, engines: Engines, listen: Listener, cancelled: CancelCheck) -> dict[str, Any]:
    """Serve a run; returns the fields of its result message.

    Raises:
        MSKDError: whatever stands in the way; then there is no ``output``, which is written last.
    """
    region = Region(request.region.minimum, request.region.maximum) if request.region else None
    listen(Event("read", 0, 1))
    image = _load(request, region)
    listen(Event("read", 1, 1))
    listen(Event("load", 0, 1))
    engine = engines.get(request.model, request.device)
    listen(Event("load", 1, 1))
    result = engine.run(image, region, listen, cancelled, uncertainty=request.uncertainty is not None)
    if cancelled():
        raise Cancelled("The segmentation was cancelled; nothing was written.")
    box = _box(region, image.geometry)
    if request.uncertainty is not None and result.uncertainty is not None:
        _save(Path(request.uncertainty), result.uncertainty.array[0][box])
    _save(Path(request.output), result.labels.array[box])
    return {
        "output": request.output,
        "uncertainty": request.uncertainty,
        "box": [[side.start, side.stop] for side in box],
        "labels": [label.model_dump(mode="json") for label in engine.manifest.labels],
        "report": result.report,
    }


def private_folder(request: Run) -> Path | None:
    """The folder that a client made for this run alone, by its name; None for files that lie elsewhere."""
    folder = Path(request.input).parent
    named = PRIVATE_FOLDER.fullmatch(folder.name) and folder == Path(request.output).parent
    return folder if named and not folder.is_symlink() else None


def _load(request: Run, region: Region | None) -> Image:
    try:
        # Of a mapped file only the region is read. Windows could not remove it while it is mapped.
        array = np.load(request.input, mmap_mode=None if os.name == "nt" else "r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as fault:
        raise InputError(f"{request.input}: is no readable .npy array ({fault}).") from fault
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim not in (3, 4):
        raise InputError(f"{request.input}: must hold numbers as [z, y, x] or [channel, z, y, x].")
    if array.ndim == 3:
        array = array[None]
    place = request.geometry
    shape = (array.shape[1], array.shape[2], array.shape[3])
    image = Image(array, Geometry(shape, place.spacing, place.origin, place.direction))
    z, y, x = _box(region, image.geometry, CONTEXT_MM)
    looked_at = array[:, z, y, x]
    if array.dtype.kind == "f" and not np.isfinite(looked_at).all():
        raise InputError("The image holds NaN or infinite voxels; replace them, for instance by the value of air.")
    return image


def _box(region: Region | None, grid: Geometry, margin: float = 0.0) -> tuple[slice, slice, slice]:
    """The voxels that a region covers; all without one, or when it lies outside (which the engine refuses)."""
    found = None if region is None else grid.index_box(*region.lps(margin))
    depth, height, width = grid.shape
    return found or (slice(0, depth), slice(0, height), slice(0, width))


def _save(path: Path, array: NDArray[np.uint8]) -> None:
    """Write the array, as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
        os.replace(temporary, path)
    except OSError as fault:
        raise InputError(f"The result {path} cannot be written ({fault.strerror or fault}); make room.") from fault
    finally:
        temporary.unlink(missing_ok=True)
