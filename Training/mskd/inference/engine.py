"""The one engine: from an image to labels on its own grid, within the memory there is."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mskd.errors import InputError, OutOfMemory
from mskd.events import CancelCheck, Listener, never, silent
from mskd.image.geometry import Image, LabelMap
from mskd.inference.backends import BACKENDS, Backend
from mskd.inference.environment import choose_device, device_name, versions
from mskd.inference.familiar import warnings
from mskd.inference.grid import Grid, make_grid
from mskd.inference.memory import forward_bytes, free_bytes, is_out_of_memory, peak_bytes
from mskd.inference.postprocess import fill_holes, keep_largest
from mskd.inference.preprocess import prepare_tensor
from mskd.inference.region import Region
from mskd.inference.restore import restore
from mskd.inference.timer import Timer
from mskd.inference.uncertainty import Confidence
from mskd.inference.windows import Plan, Shape, make_plan, predict
from mskd.package import Package
from mskd.package.weights import check_network

SMALLEST_WINDOW = 24
HALVINGS = 2
FLOAT_BYTES = 4
WINDOW_DEPENDENT = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)
"""Layers whose result depends on the size of the input: such a network sees what it was trained on, windows."""


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Args:
        labels: On the grid of the image.
        report: JSON-able: model, versions, device, milliseconds, memory, plan, volumes, confidence, warnings.
        uncertainty: Where asked for: the entropy of each voxel's probabilities on the grid of the image, uint8, in
            percent of the largest possible (100: all classes equally probable).
    """

    labels: LabelMap
    report: dict[str, Any]
    uncertainty: Image | None = None


@dataclass
class _Run:
    """What one run needs to hand on."""

    image: Image
    grid: Grid
    region: Region | None
    timer: Timer
    cancelled: CancelCheck
    confidence: Confidence
    entropy: NDArray[np.uint8] | None = None
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
        memory: Bytes that may be planned with, instead of what the device has free.

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
        self._sketch = check_network(self.manifest, source=str(package.path))
        self._window_dependent = any(isinstance(module, WINDOW_DEPENDENT) for module in self._sketch.modules())
        self._backend(self.device)

    def run(
        self,
        image: Image,
        region: Region | None = None,
        on_event: Listener = silent,
        cancelled: CancelCheck = never,
        *,
        uncertainty: bool = False,
    ) -> Result:
        """Segment one image.

        Args:
            image: Voxels ``[C, z, y, x]``, the channels of the model in its order.
            region: Where to look, with a little context around it; labels outside are 0.
            on_event: Told the phases ``prepare``, ``windows`` and ``restore``.
            cancelled: Asked once a window.
            uncertainty: Also say how unsure the network is of each voxel; takes some seconds for a large volume.

        Raises:
            InputError: channels, or a region, that do not fit. Cancelled: on request. OutOfMemory: after all fallbacks.
        """
        if image.array.shape[0] != len(self.manifest.channels):
            names = ", ".join(channel.name for channel in self.manifest.channels)
            raise InputError(
                f"The image has {image.array.shape[0]} channels and the model '{self.manifest.name}' takes "
                f"{len(self.manifest.channels)} ({names}); give one file for each."
            )
        grid = make_grid(image.geometry, self.manifest, region)
        run = _Run(
            image,
            grid,
            region,
            Timer(on_event, self.device),
            cancelled,
            Confidence(self.manifest.classes),
            np.zeros(image.geometry.shape, np.uint8) if uncertainty else None,
        )
        labels, plan, device = self._descend(run)
        keep_largest(labels.array, self._values(self.manifest.largest_component))
        fill_holes(labels.array, self._values(self.manifest.fill_holes))
        unsure = None if run.entropy is None else Image(run.entropy[None], image.geometry)
        return Result(labels, self._report(run, labels, plan, device), unsure)

    def _values(self, names: tuple[str, ...]) -> list[int]:
        return [label.value for label in self.manifest.labels if label.name in names]

    def _descend(self, run: _Run) -> tuple[LabelMap, Plan, torch.device]:
        """Smaller and smaller windows, then the CPU, until one fits."""
        shape = run.grid.geometry.shape
        for device in dict.fromkeys([self.device, torch.device("cpu")]):
            for window in self._windows(shape):
                plan = make_plan(shape, window, self.manifest.dim)
                if not self._may_fit(run, plan, device):
                    continue
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
        raise OutOfMemory(
            f"Memory ran out for a volume of {shape} voxels with the smallest windows ({' '.join(run.steps)}) "
            "Give a region of interest, close other programs, or use a machine with more memory."
        )

    def _windows(self, shape: Shape) -> Iterator[Shape]:
        """The sizes to try, largest first, each once."""
        patch = self.manifest.patch
        # A 2D network takes its slices one by one, so any number of them is a fair batch.
        sides = (shape[0], *patch) if self.manifest.dim == 2 else patch
        sizes = [] if self._window_dependent else [shape]
        for halving in range(HALVINGS + 1):
            smaller = [max(min(side, SMALLEST_WINDOW), side >> halving) for side in sides]
            if self.manifest.dim == 2:
                smaller[0] = max(1, shape[0] >> (2 * halving))
            sizes.append((min(smaller[0], shape[0]), min(smaller[1], shape[1]), min(smaller[2], shape[2])))
        yield from dict.fromkeys(sizes)

    def _may_fit(self, run: _Run, plan: Plan, device: torch.device) -> bool:
        voxels = int(np.prod(plan.shape))
        image = FLOAT_BYTES * voxels * len(self.manifest.channels)
        blend = 0 if plan.whole else FLOAT_BYTES * voxels * (self.manifest.classes + 1)
        need = image + blend + forward_bytes(self._sketch, len(self.manifest.channels), plan.window)
        free = self._memory if self._memory is not None else free_bytes(device)
        if need <= free:
            return True
        run.fall_back(f"{_pieces(plan).capitalize()} would need {_gb(need)} of {_gb(free)} free on {device}.")
        return False

    def _attempt(self, run: _Run, plan: Plan, device: torch.device) -> LabelMap:
        timer = run.timer
        with timer.phase("load"):
            backend = self._backend(device)
        with timer.phase("prepare"):
            volume = prepare_tensor(run.image, run.grid, self.manifest.normalization, device)
        with timer.phase("windows"):
            logits: Tensor = predict(
                backend, volume, plan, self.manifest.dim, on_window=timer.progress, cancelled=run.cancelled
            )
        with timer.phase("restore"):
            return restore(
                logits,
                run.grid,
                run.region,
                entropy=run.entropy,
                confidence=run.confidence,
                on_slab=timer.progress,
                cancelled=run.cancelled,
            )

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
            "confidence": {label.name: run.confidence.mean(label.value) for label in manifest.labels},
            "warnings": warnings(manifest, run.image, run.grid, run.region),
        }


def _pieces(plan: Plan) -> str:
    size = " x ".join(str(side) for side in plan.window)
    return f"the whole volume ({size})" if plan.whole else f"windows of {size}"


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
