"""Memory that is fetched while an image is read, and used by the run after it."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from mmap import PAGESIZE
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from engine_doubles import THRESHOLDS, Failing, levels

from mskd.image import Geometry
from mskd.inference import Engine, engine, pages
from mskd.inference.select import Choice

WAITED = (
    "import resource, numpy as np\n"
    "from mskd.inference import pages\n"
    "from mskd.inference.environment import keep_freed_memory\n"
    "from mskd.inference.memory import reusable_bytes\n"
    "keep = {keep}\n"
    "if keep: keep_freed_memory()\n"
    "def touched():\n"
    "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
    "    block = np.ones(150_000_000, dtype=np.uint8)\n"
    "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
    "ahead = pages.PagesAhead(200_000_000)\n"
    "if ahead._thread: ahead._thread.join()\n"
    "ahead.stop(); print(reusable_bytes() > 190e6, touched() < 1000)\n"
)


def _kernel() -> tuple[int, ...]:
    return tuple(int(number) for number in platform.release().split("-")[0].split(".")[:2] if number.isdigit())


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or sys.platform != "linux" or _kernel() < (5, 14),
    reason="of Linux 5.14 and glibc",
)
@pytest.mark.parametrize("keep", [True, False])
def test_pages_are_there_for_what_is_allocated_next(root: Path, keep: bool) -> None:
    """Only where freed memory is kept: elsewhere the system would have it back at once."""
    code = WAITED.format(keep=keep)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, encoding="utf-8", cwd=root / "Training"
    )
    fetched, little_touched = done.stdout.split()
    assert fetched == str(keep)
    assert little_touched == "True" or not keep


UNTOUCHED = (
    "import torch\n"
    "from mskd.inference import pages\n"
    "from mskd.inference.environment import keep_freed_memory\n"
    "from mskd.inference.memory import free_bytes, reusable_bytes\n"
    "keep_freed_memory(); pages._fetch = lambda block, enough: None\n"
    "free, reusable = free_bytes(torch.device('cpu')), reusable_bytes()\n"
    "pages.PagesAhead(2_000_000_000).stop()\n"
    "print(free_bytes(torch.device('cpu')) - free < 500e6, reusable_bytes() - reusable < 500e6)\n"
)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a glibc setting")
def test_what_was_not_fetched_is_not_counted_twice(root: Path) -> None:
    """Freed, it is the allocator's to give, and still the system's."""
    done = subprocess.run(
        [sys.executable, "-c", UNTOUCHED], stdout=subprocess.PIPE, check=True, encoding="utf-8", cwd=root / "Training"
    )
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize(("answers", "calls"), [([0] * 9, 4), ([0, -1], 2)], ids=["all of it", "an old system"])
def test_every_page_is_asked_for_once(monkeypatch: pytest.MonkeyPatch, answers: list[int], calls: int) -> None:
    asked: list[tuple[int, int]] = []

    def advise(start: int, size: int, advice: int) -> int:
        asked.append((start, size))
        return answers[len(asked) - 1]

    monkeypatch.setattr(pages.ctypes, "CDLL", lambda name: SimpleNamespace(madvise=advise))
    block = np.empty(3 * pages.PORTION + 12_345, dtype=np.uint8)
    pages._fetch(block, threading.Event())
    assert len(asked) == calls
    first, last = block.ctypes.data, block.ctypes.data + block.size
    assert all(first <= start < start + size <= last for start, size in asked)
    assert all(before + size == start for (before, size), (start, _) in pairwise(asked))
    if -1 not in answers:
        assert sum(size for _, size in asked) > block.size - 2 * PAGESIZE


def test_fetching_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    enough, asked = threading.Event(), []

    def advise(start: int, size: int, advice: int) -> int:
        asked.append(size)
        enough.set()
        return 0

    monkeypatch.setattr(pages.ctypes, "CDLL", lambda name: SimpleNamespace(madvise=advise))
    pages._fetch(np.empty(3 * pages.PORTION, dtype=np.uint8), enough)
    assert asked == [pages.PORTION]


class Recorded:
    """Takes the place of ``PagesAhead``."""

    sizes: ClassVar[list[int]] = []
    stopped: ClassVar[list[int]] = []

    def __init__(self, size: int) -> None:
        self.sizes.append(size)

    def stop(self) -> None:
        self.stopped.append(self.sizes[-1])


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    monkeypatch.setattr(Recorded, "sizes", [])
    monkeypatch.setattr(Recorded, "stopped", [])
    monkeypatch.setattr(engine, "PagesAhead", Recorded)
    return Recorded


def test_as_much_is_fetched_as_the_plan_needs(threshold_package: Callable[..., Any], recorded: type[Recorded]) -> None:
    image, truth = levels(Geometry((9, 20, 21)))
    ready = Engine(threshold_package(THRESHOLDS), "cpu", backend="torch_eager")
    ready.warm_up(image.geometry)
    assert not recorded.stopped
    ready.warm_up(image.geometry)
    assert recorded.stopped == recorded.sizes[:1]
    np.testing.assert_array_equal(ready.run(image).labels.array, truth)
    assert recorded.stopped == recorded.sizes
    assert recorded.sizes == 2 * [ready._planner.cheapest(image.geometry.shape).bytes]
    ready.run(image)
    assert recorded.stopped == recorded.sizes


@pytest.mark.parametrize("memory", [None, 10**12])
def test_nothing_is_fetched_blindly_or_within_a_limit(
    threshold_package: Callable[..., Any], recorded: type[Recorded], memory: int | None
) -> None:
    ready = Engine(threshold_package(THRESHOLDS), "cpu", backend="torch_eager", memory=memory)
    ready.warm_up(Geometry((9, 20, 21)) if memory else None)
    assert not recorded.sizes


def test_nothing_is_fetched_of_memory_that_is_scarce(
    threshold_package: Callable[..., Any], recorded: type[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image has to find room beside it."""
    ready = Engine(threshold_package(THRESHOLDS), "cpu", backend="torch_eager")
    whole = Geometry((48, 48, 48))
    need = ready._planner.cheapest(whole.shape).bytes
    monkeypatch.setattr(engine, "free_bytes", lambda device: int(1.5 * need))
    ready.warm_up(whole)
    fetched = recorded.sizes.copy()
    assert all(size < need for size in fetched)
    monkeypatch.setattr(engine, "address_space_is_limited", lambda: True)
    ready.warm_up(whole)
    assert recorded.sizes == fetched


@pytest.mark.parametrize("backend", ["torch_eager", "failing", None])
def test_memory_is_fetched_for_pytorch_alone(
    threshold_package: Callable[..., Any],
    failing: type[Failing],
    recorded: type[Recorded],
    monkeypatch: pytest.MonkeyPatch,
    backend: str | None,
) -> None:
    """Another runtime keeps the processor busy while it loads."""
    last = backend and Choice(backend, "float32", {})
    monkeypatch.setattr("mskd.inference.runners.last_choice", lambda *words: last)
    Engine(threshold_package(THRESHOLDS), "cpu").warm_up(Geometry((9, 20, 21)))
    assert bool(recorded.sizes) == (backend == "torch_eager")
