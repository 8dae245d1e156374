"""The fastest backend on this machine, by measurement; the answer is kept between runs."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mskd.errors import InputError
from mskd.files import write_text
from mskd.inference.backends import BACKENDS, Backend, make_backend
from mskd.inference.machine import cache_folder, computes_quickly, describe
from mskd.inference.memory import is_out_of_memory
from mskd.networks import SegmentationNetwork

REFERENCE = "torch_eager"
FOLDER = "backends"
"""Of the cache, for the answers."""
VOXELS = 64**3
"""Of an image to measure on, at least: less than a second of a light student."""
SECONDS = 0.5
"""Of PyTorch on the piece to measure on, where that is larger: which backend is fast depends on the size."""
RUNS = 4
"""The first ones set up; the fastest counts."""
CLEARLY = 2 / 3
"""Share of PyTorch's time below which another runtime wins: it must be loaded, holds more memory, and its first run on
a new size takes longer than those that are measured."""
HOPELESS = 3.0
"""A first run so many times slower than the best is not repeated: setting up rarely takes longer."""
PATIENCE = 1.0
"""Seconds of runs after which a candidate is known well enough."""
SAME_LABELS = {"float32": 0.999, "bfloat16": 0.995, "float16": 0.995}
"""Share of voxels that must get the label they get in PyTorch's float32."""
ALLOWED = {"cuda": ("float32", "float16")}
"""Numbers to compute with by type of device; float32 elsewhere. Not bfloat16 on a processor, unasked: a process that
measured several runtimes with it crashed now and then afterwards (PyTorch 2.13, OpenVINO 2026.4)."""


@dataclass(frozen=True)
class Choice:
    """What to run a network with.

    Args:
        backend: Registered name.
        precision: What it computes with.
        milliseconds: By "backend precision", for the measured piece; None: failed, or gave other labels.
    """

    backend: str
    precision: str
    milliseconds: dict[str, float | None]


def choose(
    package_fingerprint: str,
    make_network: Callable[[], SegmentationNetwork],
    device: torch.device,
    shape: Sequence[int],
    *,
    precisions: Sequence[str] | None = None,
    sample: Tensor | None = None,
) -> Choice:
    """The fastest way to run a network on images of a size, measured once a machine, model and class of sizes.

    Args:
        package_fingerprint: Of the model, to know it again.
        make_network: Gives a new copy each time.
        device: Where to compute.
        shape: ``[N, C, *spatial]`` of what is about to be run; a piece of it is measured.
        precisions: Those that are allowed, by default :data:`ALLOWED`.
        sample: A prepared image ``[N, C, *spatial]`` to measure on, of which a piece is taken; noise by default.
            Reduced precision is judged by the labels it gives here.
    """
    tried = candidates(device, precisions)
    if len(tried) == 1:
        return Choice(*tried[0], {})
    size = measured_size(shape)
    key = {
        "model": package_fingerprint,
        "machine": describe(device),
        "size": [size[0], size[1], *(round(2 * math.log2(side)) for side in size[2:])],
        "voxels": round(math.log2(math.prod(shape))),
        "candidates": tried,
    }
    place = _place(key, _owner(package_fingerprint, device))
    kept = _read(place, tried)
    if place is not None and kept is not None:
        with suppress(OSError):
            place.touch()  # the latest, for :func:`last_choice`
        return kept
    choice = measure(make_network, device, partial(_piece, sample, shape, device), tried)
    _write(place, key, choice)
    return choice


def last_choice(
    package_fingerprint: str, device: torch.device, precisions: Sequence[str] | None = None
) -> Choice | None:
    """What :func:`choose` answered last for a model on this machine, whatever the size; None: never, or not kept."""
    tried = candidates(device, precisions)
    if len(tried) == 1:
        return Choice(*tried[0], {})
    folder = cache_folder()
    if folder is None:
        return None
    places = (folder / FOLDER).glob(f"{_owner(package_fingerprint, device)}-*.json")
    try:
        latest = max(places, key=lambda place: place.stat().st_mtime, default=None)
    except OSError:
        return None
    return _read(latest, tried)


def candidates(device: torch.device, precisions: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """(backend, precision) worth measuring, the reference first; of :data:`ALLOWED` precisions by default."""
    if precisions is None:
        precisions = ALLOWED.get(device.type, ("float32",))
    found = [
        (name, precision)
        for name in BACKENDS.names()
        for precision in precisions
        if _is_worth_it(BACKENDS[name], device, precision)
    ]
    reference = (REFERENCE, "float32")
    return [reference, *(one for one in found if one != reference)]


def measured_size(shape: Sequence[int], most: float = VOXELS) -> tuple[int, ...]:
    """``shape`` with its longest sides halved, slices of a batch too, until no more than ``most`` voxels are left."""
    sides = [shape[0], *shape[2:]]
    while math.prod(sides) > most:
        longest = sides.index(max(sides))
        sides[longest] = (sides[longest] + 1) // 2
    return (sides[0], shape[1], *sides[1:])


def measure(
    make_network: Callable[[], SegmentationNetwork],
    device: torch.device,
    piece: Callable[[float], Tensor],
    tried: Sequence[tuple[str, str]],
) -> Choice:
    """Run every candidate on the same piece of an image; the fastest that gives the reference's labels wins, clearly.

    Args:
        piece: Gives one of so many voxels at most, on the device.
    """
    milliseconds: dict[str, float | None] = {}
    best, chosen = math.inf, tried[0]
    expected: Tensor | None = None
    image = piece(VOXELS)
    for name, precision in tried:
        taken, kind = None, f"{name} {precision}"
        milliseconds[kind] = None
        # Whatever goes wrong in a runtime that nobody asked for by name, another one is there.
        try:
            backend = make_backend(name, make_network(), device, precision)
            taken, labels = _time(backend, image, best)
            if expected is None:  # the reference: the lighter the network, the more of the image can be measured
                larger = piece(VOXELS * SECONDS / max(taken, 1e-6)) if taken < SECONDS else image
                if larger.shape != image.shape:
                    image = larger
                    taken, labels = _time(backend, image, best)
        except Exception as fault:
            if expected is None:
                if not is_out_of_memory(fault):
                    raise
                break  # without the reference's labels there is nothing to compare with
        else:
            expected = labels if expected is None else expected
            if (labels == expected).float().mean() < SAME_LABELS[precision]:
                taken = None
        if taken is None:
            continue
        milliseconds[kind] = round(1000 * taken, 3)
        cost = taken if name == REFERENCE else taken / CLEARLY
        if cost < best:
            best, chosen = cost, (name, precision)
    return Choice(*chosen, milliseconds)


def _is_worth_it(kind: type[Backend], device: torch.device, precision: str) -> bool:
    knows = device.type in kind.devices and precision in kind.precisions
    return knows and kind.measured and kind.available() is None and computes_quickly(precision, device)


def _time(backend: Backend, image: Tensor, best: float) -> tuple[float, Tensor]:
    """Seconds of the fastest run, and its labels."""
    fastest, spent, logits = math.inf, 0.0, image
    for _ in range(RUNS):
        del logits  # no plan has counted their memory twice
        start = time.perf_counter()
        logits = backend(image)
        if image.device.type == "cuda":
            torch.cuda.synchronize(image.device)
        taken = time.perf_counter() - start
        fastest, spent = min(fastest, taken), spent + taken
        if taken > HOPELESS * best or spent > PATIENCE:
            break
    return fastest, logits.argmax(1).to(torch.uint8)


def _piece(sample: Tensor | None, shape: Sequence[int], device: torch.device, most: float) -> Tensor:
    """The middle of a sample; a sample smaller than that is taken as it is. Without a sample, noise."""
    size = measured_size(shape, most)
    if sample is None:
        return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    for axis, side in enumerate(size):
        length = min(side, sample.shape[axis])
        sample = sample.narrow(axis, (sample.shape[axis] - length) // 2, length)
    return sample.contiguous().to(device)


def _place(key: dict[str, Any], owner: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / FOLDER / f"{owner}-{_digest(key)}.json"


def _owner(package_fingerprint: str, device: torch.device) -> str:
    return _digest([package_fingerprint, describe(device)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _read(place: Path | None, tried: Sequence[tuple[str, str]]) -> Choice | None:
    """The kept answer; None where there is none that makes sense."""
    if place is None:
        return None
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))["choice"]
        choice = Choice(str(kept["backend"]), str(kept["precision"]), dict(kept["milliseconds"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return choice if (choice.backend, choice.precision) in tried else None


def _write(place: Path | None, key: dict[str, Any], choice: Choice) -> None:
    if place is None:
        return
    with suppress(OSError, InputError):  # a home that cannot be written to costs a measurement each time, no more
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps({"choice": asdict(choice), "of": key}, indent=2) + "\n")
