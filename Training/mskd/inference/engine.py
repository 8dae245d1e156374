"""The one engine: from an image to labels on its own grid, within the memory there is."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mskd.errors import InputError, OutOfMemory
from mskd.events import CancelCheck, Listener, never, silent
from mskd.image.geometry import Geometry, Image, LabelMap
from mskd.inference.body import air_level, body_box, normalized_air
from mskd.inference.environment import choose_device
from mskd.inference.familiar import warnings
from mskd.inference.grid import Grid, make_grid, narrowed
from mskd.inference.memory import address_space_is_limited, free_bytes, held_bytes, is_out_of_memory
from mskd.inference.pages import PagesAhead
from mskd.inference.plan import COMFORTABLE, Planner
from mskd.inference.postprocess import fill_holes, keep_largest
from mskd.inference.preprocess import prepare_tensor
from mskd.inference.region import Region
from mskd.inference.report import in_gigabytes, in_words, make_report
from mskd.inference.restore import restore
from mskd.inference.runners import HALVES, Runner, Runners
from mskd.inference.select import REFERENCE
from mskd.inference.timer import Timer
from mskd.inference.uncertainty import Confidence
from mskd.inference.windows import Plan, fitted, stream
from mskd.package import Package
from mskd.package.weights import check_network

RESERVE, RESERVE_ON_GPU = 500_000_000, 64_000_000
"""Of a limit on memory: for what is loaded or allocated beside the plan, and for freed blocks that nothing fits into,
up to 0.4 GB more in one run than in another; of a GPU's, workspaces alone."""


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Args:
        labels: On the grid of the image.
        report: JSON-able: model, versions, device, milliseconds, memory, plan, volumes, confidence, warnings.
        uncertainty: Where asked for: the entropy of each voxel's probabilities on the grid of the image, uint8, in
            percent of the largest possible (100: all classes equally probable); see :func:`restore`.
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
    entropy: NDArray[np.uint8] | None = None
    confidence: Confidence = field(default_factory=lambda: Confidence(0))
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
        backend: Name of a registered way to run the network; ``auto`` takes the one measured to be the fastest here.
        precision: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is float32, on CUDA also float16 where it is
            faster and gives the same labels on the image at hand.
        memory: Bytes that this process may hold at most (on a GPU: there), what it holds already included.

    Raises:
        SettingsError: no such device, backend or precision. PackageError: weights that cannot be used.
    """

    def __init__(
        self,
        package: Package,
        device: str = "auto",
        *,
        backend: str = "auto",
        precision: str = "auto",
        memory: int | None = None,
    ) -> None:
        self.package = package
        self.manifest = package.manifest
        self.device = choose_device(device)
        self._memory = memory
        self._planner = Planner(self.manifest, check_network(self.manifest, source=str(package.path)))
        self._runners = Runners(package, backend, precision)
        self._runners.check(self.device)
        self._ahead: PagesAhead | None = None

    def warm_up(self, geometry: Geometry | None = None) -> None:
        """Make ready, in threads, what the next run will need: call it before reading the image.

        That is the backend which ran the last large image of this model fastest. If it is PyTorch, on a processor and
        without a limit on memory, it is also the memory for an image of this ``geometry``, at most half of what is
        free. Other runtimes keep the processor busy while they load, and take their memory elsewhere.
        """
        expected = self._runners.expect(self.device)
        self._take_ahead()
        if geometry is None or expected != REFERENCE or self.device.type != "cpu":
            return
        if self._memory is not None or address_space_is_limited():
            return
        with suppress(InputError):  # which the run will tell of
            grid = make_grid(geometry, self.manifest, None, self._planner.largest_view)
            found = self._planner.cheapest(
                grid.geometry.shape,
                self._budget(self.device) / 2,
                halved=self._runners.precision in HALVES.values(),
                comfortable=COMFORTABLE,
            )
            self._ahead = PagesAhead(found.bytes) if found is not None else None

    def _take_ahead(self) -> None:
        """What was fetched so far is there for others."""
        if self._ahead is not None:
            self._ahead.stop()
        self._ahead = None

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
            uncertainty: Also say how unsure the network is of each voxel; takes less than a second for a chest CT.

        Raises:
            InputError: channels, or a region, that do not fit. Cancelled: on request. OutOfMemory: after all fallbacks.
        """
        if image.array.shape[0] != len(self.manifest.channels):
            names = ", ".join(channel.name for channel in self.manifest.channels)
            raise InputError(
                f"The image has {image.array.shape[0]} channels and the model '{self.manifest.name}' takes "
                f"{len(self.manifest.channels)} ({names}); give one file for each."
            )
        self._take_ahead()
        timer = Timer(on_event, self.device)
        with timer.phase("prepare"):
            grid = self._grid(image, region)
        run = _Run(
            image,
            grid,
            region,
            timer,
            cancelled,
            np.zeros(image.geometry.shape, np.uint8) if uncertainty else None,
        )
        labels, plan, runner = self._descend(run)
        seen = grid.view(labels.array)  # all else is background
        keep_largest(seen, self._values(self.manifest.largest_component))
        fill_holes(seen, self._values(self.manifest.fill_holes))
        unsure = None if run.entropy is None else Image(run.entropy[None], image.geometry)
        report = make_report(self.package, labels, grid, region, plan, runner, run.steps, timer)
        report["confidence"] = {label.name: run.confidence.mean(label.value) for label in self.manifest.labels}
        report["warnings"] = warnings(self.manifest, image, grid, region)
        return Result(labels, report, unsure)

    def _values(self, names: tuple[str, ...]) -> list[int]:
        return [label.value for label in self.manifest.labels if label.name in names]

    def _grid(self, image: Image, region: Region | None) -> Grid:
        """Of the region, or of the body where the air around it is all one to the network."""
        grid = make_grid(image.geometry, self.manifest, region, self._planner.largest_view)
        level = air_level(self.manifest.normalization)
        if region is not None or level is None:
            return grid
        box = body_box(grid.view(image.array), level, grid.oriented.spacing)
        return grid if box is None else narrowed(grid, box, self.manifest)

    def _descend(self, run: _Run) -> tuple[LabelMap, Plan, Runner]:
        """The cheapest plan that fits; then smaller windows, half precision, and the CPU, until nothing runs out."""
        shape = run.grid.geometry.shape
        for device, precision in self._rungs():
            budget, largest, on_gpu = self._budget(device), inf, device.type == "cuda"
            cheapest = partial(
                self._planner.cheapest,
                shape,
                halved=precision in HALVES.values(),
                batched=on_gpu,
                comfortable=inf if on_gpu else COMFORTABLE,
            )
            best = cheapest()
            if best is not None and best.bytes > budget:
                run.fall_back(
                    f"{in_words(best.plan).capitalize()} would need {in_gigabytes(best.bytes)} of "
                    f"{in_gigabytes(budget)} free on {device}."
                )
            while found := cheapest(budget, largest=largest):
                try:
                    return self._attempt(run, found.plan, device, precision)
                except (MemoryError, RuntimeError) as fault:
                    if not is_out_of_memory(fault):
                        raise
                # Outside the handler: the exception held the tensors that filled the memory.
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                run.fall_back(f"Memory ran out on {device} with {in_words(found.plan)}; trying something smaller.")
                largest = 0.75 * found.plan.batch * prod(found.plan.window)
        raise OutOfMemory(
            f"Memory ran out for a volume of {' x '.join(map(str, shape))} voxels with the smallest windows "
            f"({' '.join(run.steps)}) Give a region of interest, raise the limit, close other programs, or use a "
            "machine with more memory."
        )

    def _rungs(self) -> Iterator[tuple[torch.device, str]]:
        """Where and with which numbers to try, one after the other."""
        cpu = torch.device("cpu")
        yield self.device, self._runners.precision
        for device in dict.fromkeys([self.device, cpu]):
            if not self._runners.runs_on(device):
                continue
            if device != self.device:
                yield device, "auto"
            half = self._runners.half(device)
            if half is not None:
                yield device, half

    def _budget(self, device: torch.device) -> int:
        free = free_bytes(device)
        if self._memory is None:
            return free
        reserve = RESERVE_ON_GPU if device.type == "cuda" else RESERVE
        return max(0, min(free, self._memory - held_bytes(device) - reserve))

    def _attempt(self, run: _Run, plan: Plan, device: torch.device, precision: str) -> tuple[LabelMap, Plan, Runner]:
        timer, progress = run.timer, _Progress(run.timer)
        run.confidence = Confidence(self.manifest.classes)
        with timer.phase("prepare"):
            volume = fitted(prepare_tensor(run.image, run.grid, self.manifest.normalization, device), plan)
        with timer.phase("load", silent=True):
            runner = self._runners.fastest(device, precision, volume, plan, run.fall_back)
        slabs = stream(
            runner.forward,
            volume,
            plan,
            self.manifest.dim,
            air=normalized_air(self.manifest.normalization),
            on_window=progress.window,
            cancelled=run.cancelled,
        )
        with timer.phase("restore", silent=True):
            labels = restore(
                timer.within("windows", slabs),
                run.grid,
                run.region,
                step=plan.step,
                entropy=run.entropy,
                confidence=run.confidence,
                on_slab=progress.slab,
                cancelled=run.cancelled,
            )
        return labels, plan, runner


class _Progress:
    """Tells of windows, and of slabs once all windows are done: a bar never runs backwards."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._complete = False

    def window(self, done: int, total: int) -> None:
        self._complete = done == total
        self._timer.progress("windows", done, total)

    def slab(self, done: int, total: int) -> None:
        if self._complete:
            self._timer.progress("restore", done, total)
