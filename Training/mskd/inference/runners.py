"""The network of a package, ready to run: by the backend that was asked for, or by the fastest one here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mskd.errors import SettingsError
from mskd.inference.backends import BACKENDS, Backend, make_backend
from mskd.inference.machine import computes_quickly
from mskd.inference.memory import is_out_of_memory
from mskd.inference.select import REFERENCE, Choice, choose, last_choice
from mskd.inference.windows import Plan
from mskd.networks import SegmentationNetwork
from mskd.package import Package

AUTO = "auto"
PRECISIONS = (AUTO, "float32", "bfloat16", "float16")
HALVES = {"cuda": "float16", "cpu": "bfloat16"}
"""The half precision to fall back to, by type of device."""

SMALL = 1 << 18
"""Voxels that PyTorch computes, without another runtime being measured or loaded for them."""

Say = Callable[[str], None]


@dataclass
class Runner:
    """A network on a device.

    Args:
        device: Where it is.
        backend: Registered name of what runs it.
        precision: What it computes with.
        milliseconds: Of all candidates, where it was chosen by measurement.
    """

    device: torch.device
    backend: str
    precision: str
    milliseconds: dict[str, float | None]
    _run: Backend
    _instead: Callable[[], Backend] | None = None
    _say: Say = field(default=lambda sentence: None)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float32 of ``image``; by PyTorch from now on, should a runtime that nobody asked for fail."""
        try:
            return self._run(image)
        except Exception as fault:
            if self._instead is None or is_out_of_memory(fault):
                raise
            reason = " ".join(str(fault).split())[:200]
            self._say(f"The backend '{self.backend}' failed ({reason}); going on with '{REFERENCE}'.")
        self._run, self._instead = self._instead(), None
        self.backend, self.precision = REFERENCE, "float32"
        return self._run(image)


class Runners:
    """Makes runners of one package and keeps them.

    Args:
        package: The model.
        backend: Registered name, or ``auto``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        SettingsError: an unknown name.
    """

    def __init__(self, package: Package, backend: str, precision: str) -> None:
        if backend != AUTO:
            BACKENDS[backend]
        if precision not in PRECISIONS:
            raise SettingsError(f"There is no precision '{precision}'; choose one of {', '.join(PRECISIONS)}.")
        self.precision = precision
        self._package = package
        self._backend = backend
        self._spare: SegmentationNetwork | None = None
        self._choices: dict[tuple[str, ...], Choice] = {}
        self._ready: dict[tuple[str, ...], Runner] = {}
        self._expected: dict[tuple[str, ...], Future[Backend]] = {}

    def check(self, device: torch.device) -> None:
        """Load the weights, and make the backend that was asked for, so that what is wrong with them is known early.

        Raises:
            PackageError: weights that cannot be used. SettingsError: a backend that cannot be used here.
        """
        self._spare = self._package.load_network()
        if self._backend != AUTO:
            self._runner(device, Choice(self._backend, _single(self.precision), {}))

    def expect(self, device: torch.device) -> str | None:
        """Begin to make ready what was the fastest for the last image, beside whatever the caller goes on to do.

        Returns:
            Its name; None where nothing is known.
        """
        if self._backend != AUTO:
            return self._backend
        choice = last_choice(self._package.fingerprint, device, _wanted(self.precision))
        if choice is None:
            return None
        if choice.backend == REFERENCE:  # which is ready at once
            return REFERENCE
        pool = ThreadPoolExecutor(1)
        self._expected[_key(device, choice)] = pool.submit(
            make_backend, choice.backend, self._network(), device, choice.precision
        )
        pool.shutdown(wait=False)
        return choice.backend

    def runs_on(self, device: torch.device) -> bool:
        """Whether the backend that was asked for knows a type of device; PyTorch knows all."""
        return self._backend == AUTO or device.type in BACKENDS[self._backend].devices

    def half(self, device: torch.device) -> str | None:
        """The half precision that saves memory on a device; None where it is slow, in use already, or not wanted."""
        half = HALVES.get(device.type)
        if half is None or self.precision != AUTO or not computes_quickly(half, device):
            return None
        named = REFERENCE if self._backend == AUTO else self._backend
        return half if half in BACKENDS[named].precisions else None

    def fastest(self, device: torch.device, precision: str, volume: Tensor, plan: Plan, say: Say) -> Runner:
        """What to run the windows of a plan with.

        Args:
            device: Where.
            precision: One of :data:`PRECISIONS`.
            volume: Prepared voxels ``[C, z, y, x]``, to measure on.
            plan: The windows.
            say: Told when a backend fails later.
        """
        if self._backend == AUTO:
            choice = self._choose(device, precision, volume, plan)
        else:
            choice = Choice(self._backend, _single(precision), {})
        runner = self._runner(device, choice)
        runner._say = say
        self._expected.clear()
        return runner

    def _choose(self, device: torch.device, precision: str, volume: Tensor, plan: Plan) -> Choice:
        if plan.voxels <= SMALL:
            return Choice(REFERENCE, _single(precision), {})
        wait(self._expected.values())  # what is loaded meanwhile would be measured too
        key = (str(device), precision, str(plan.window), str(plan.batch))
        if key not in self._choices:
            flat = self._package.manifest.dim == 2
            sample = volume.transpose(0, 1) if flat else volume[None]
            shape = (plan.window[0] if flat else plan.batch, len(volume), *plan.window[int(flat) :])
            self._choices[key] = choose(
                self._package.fingerprint,
                self._network,
                device,
                shape,
                precisions=_wanted(precision),
                sample=sample,
            )
        return self._choices[key]

    def _runner(self, device: torch.device, choice: Choice) -> Runner:
        key = _key(device, choice)
        if key not in self._ready:
            expected = self._expected.pop(key, None)
            if expected is not None and expected.exception() is None:
                backend = expected.result()
            else:
                backend = make_backend(choice.backend, self._network(), device, choice.precision)
            runner = Runner(device, choice.backend, choice.precision, choice.milliseconds, backend)
            if self._backend == AUTO and choice.backend != REFERENCE:
                runner._instead = lambda: make_backend(REFERENCE, self._network(), device)
            self._ready[key] = runner
        return self._ready[key]

    def _network(self) -> SegmentationNetwork:
        """A copy of its own for each who asks."""
        spare, self._spare = self._spare, None
        network = spare if spare is not None else self._package.load_network()
        network.enlarges = False  # the engine's interpolation to the image's own grid does it
        return network


def _key(device: torch.device, choice: Choice) -> tuple[str, ...]:
    return (str(device), choice.backend, choice.precision)


def _wanted(precision: str) -> tuple[str, ...] | None:
    return None if precision == AUTO else (precision,)


def _single(precision: str) -> str:
    return "float32" if precision == AUTO else precision
