"""The one engine: from an image to labels on its own grid, within the memory there is."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mskd.errors import InputError, OutOfMemory
from mskd.events import CancelCheck, Listener, never, silent
from mskd.image.geometry import Image, LabelMap
from mskd.inference.backends import BACKENDS, Backend
from mskd.inference.body import air_level, body_box, normalized_air
from mskd.inference.environment import choose_device, device_name, versions
from mskd.inference.grid import Grid, make_grid, narrowed
from mskd.inference.memory import free_bytes, held_bytes, is_out_of_memory, peak_bytes
from mskd.inference.plan import Planner
from mskd.inference.postprocess import keep_largest
from mskd.inference.preprocess import prepare_tensor
from mskd.inference.region import Region
from mskd.inference.restore import restore
from mskd.inference.timer import Timer
from mskd.inference.windows import Plan, Shape, predict
from mskd.package import Package
from mskd.package.weights import check_network


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Args:
        labels: On the grid of the image.
        report: JSON-able: model, versions, device, milliseconds, memory, plan, volumes.
    """

    labels: LabelMap
    report: dict[str, Any]


@dataclass
class _Run:
    """What one run needs to hand on."""

    image: Image
    grid: Grid
    region: Region | None
    timer: Timer
    cancelled: CancelCheck
    steps: list[str] = field(default_factory=list)

    def fall_back(self, sentence: str) -> None:
        """Tell the user, and the report, what is tried next and why."""
        self.steps.append(sentence)
        self.timer.say(sentence)


class Engine:
    """A package made ready on a device. Weights stay loaded between runs; one run at a time.

    Args:
        package: The model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        backend: Name of a registered way to run the network.
        memory: Bytes that this process may hold at most (on a GPU: there), what it holds already included.

    Raises:
        SettingsError: no such device or backend. PackageError: weights that cannot be used.
    """

    def __init__(
        self, package: Package, device: str = "auto", *, backend: str = "torch_eager", memory: int | None = None
    ) -> None:
        self.package = package
        self.manifest = package.manifest
        self.device = choose_device(device)
        self._backend_name = backend
        self._memory = memory
        self._backends: dict[str, Backend] = {}
        self._planner = Planner(self.manifest, check_network(self.manifest, source=str(package.path)))
        self._backend(self.device)

    def run(
        self,
        image: Image,
        region: Region | None = None,
        on_event: Listener = silent,
        cancelled: CancelCheck = never,
    ) -> Result:
        """Segment one image.

        Args:
            image: Voxels ``[C, z, y, x]``, the channels of the model in its order.
            region: Where to look, with a little context around it; labels outside are 0.
            on_event: Told the phases ``prepare``, ``windows`` and ``restore``.
            cancelled: Asked once a window.

        Raises:
            InputError: channels, or a region, that do not fit. Cancelled: on request. OutOfMemory: after all fallbacks.
        """
        if image.array.shape[0] != len(self.manifest.channels):
            names = ", ".join(channel.name for channel in self.manifest.channels)
            raise InputError(
                f"The image has {image.array.shape[0]} channels and the model '{self.manifest.name}' takes "
                f"{len(self.manifest.channels)} ({names}); give one file for each."
            )
        run = _Run(image, self._grid(image, region), region, Timer(on_event, self.device), cancelled)
        labels, plan, device = self._descend(run)
        wanted = [label.value for label in self.manifest.labels if label.name in self.manifest.largest_component]
        keep_largest(labels.array, wanted)
        return Result(labels, self._report(run, labels, plan, device))

    def _grid(self, image: Image, region: Region | None) -> Grid:
        """Of the region, or of the body where the air around it is all one to the network."""
        grid = make_grid(image.geometry, self.manifest, region)
        level = air_level(self.manifest.normalization)
        if region is not None or level is None:
            return grid
        box = body_box(grid.view(image.array), level, grid.oriented.spacing)
        return grid if box is None else narrowed(grid, box, self.manifest)

    def _descend(self, run: _Run) -> tuple[LabelMap, Plan, torch.device]:
        """The cheapest plan that fits; when memory runs out all the same, one of half the size; then the CPU."""
        shape = run.grid.geometry.shape
        for device in dict.fromkeys([self.device, torch.device("cpu")]):
            budget, largest, batched = self._budget(device), inf, device.type == "cuda"
            best = self._planner.cheapest(shape)
            if best is not None and best.bytes > budget:
                run.fall_back(
                    f"{_pieces(best.plan).capitalize()} would need {_gb(best.bytes)} of {_gb(budget)} free on {device}."
                )
            while found := self._planner.cheapest(shape, budget, largest=largest, batched=batched):
                plan = found.plan
                try:
                    return self._attempt(run, plan, device), plan, device
                except (MemoryError, RuntimeError) as fault:
                    if not is_out_of_memory(fault):
                        raise
                # Outside the handler: the exception held the tensors that filled the memory.
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                run.fall_back(f"Memory ran out on {device} with {_pieces(plan)}; trying something smaller.")
                largest = 0.75 * plan.batch * prod(plan.window)
        raise OutOfMemory(
            f"Memory ran out for a volume of {_sides(shape)} voxels with the smallest windows ({' '.join(run.steps)}) "
            "Give a region of interest, close other programs, or use a machine with more memory."
        )

    def _budget(self, device: torch.device) -> int:
        free = free_bytes(device)
        return free if self._memory is None else max(0, min(free, self._memory - held_bytes(device)))

    def _attempt(self, run: _Run, plan: Plan, device: torch.device) -> LabelMap:
        timer = run.timer
        with timer.phase("load"):
            backend = self._backend(device)
        with timer.phase("prepare"):
            volume = prepare_tensor(run.image, run.grid, self.manifest.normalization, device)
        with timer.phase("windows"):
            logits: Tensor = predict(
                backend,
                volume,
                plan,
                self.manifest.dim,
                air=normalized_air(self.manifest.normalization),
                on_window=timer.progress,
                cancelled=run.cancelled,
            )
        with timer.phase("restore"):
            return restore(logits, run.grid, run.region, on_slab=timer.progress, cancelled=run.cancelled)

    def _backend(self, device: torch.device) -> Backend:
        if str(device) not in self._backends:
            self._backends[str(device)] = BACKENDS[self._backend_name](self.package.load_network(), device)
        return self._backends[str(device)]

    def _report(self, run: _Run, labels: LabelMap, plan: Plan, device: torch.device) -> dict[str, Any]:
        manifest, geometry = self.manifest, run.image.geometry
        # Slice by slice: bincount makes 64-bit copies of what it counts.
        counts = np.sum([np.bincount(plane.ravel(), minlength=manifest.classes) for plane in labels.array], axis=0)
        peak = peak_bytes(device)
        return {
            "model": {
                "name": manifest.name,
                "version": manifest.version,
                "fingerprint": self.package.fingerprint,
            },
            "versions": versions(),
            "device": str(device),
            "device_name": device_name(device),
            "backend": self._backend_name,
            "threads": torch.get_num_threads(),
            "milliseconds": run.timer.milliseconds(),
            "peak_memory_mb": None if peak is None else round(peak / 1e6, 1),
            "plan": {
                "voxels": list(plan.shape),
                "spacing": list(run.grid.geometry.spacing),
                "window": list(plan.window),
                "windows": len(plan.starts),
                "whole": plan.whole,
                "region": run.region is not None,
            },
            "memory_steps": run.steps,
            "image": {"voxels": list(geometry.shape), "spacing": list(geometry.spacing)},
            "volumes_ml": {
                label.name: float(counts[label.value]) * geometry.voxel_volume / 1000 for label in manifest.labels
            },
        }


def _pieces(plan: Plan) -> str:
    if plan.whole:
        return f"the whole volume ({_sides(plan.window)})"
    return f"{len(plan.starts)} windows of {_sides(plan.window)}"


def _sides(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
