"""Reads what the next steps need while the present one computes: in a thread, or in processes of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from mskd.errors import InputError
from mskd.events import Event, Listener, silent

Item = TypeVar("Item")
AHEAD = 2
"""Items read ahead, by the thread or by each process."""

MOST_DEATHS = 3
"""How often in a row the processes may die before the run gives up."""


class Loader(Generic[Item]):
    """``read(position)`` for every position from ``start`` to ``stop``, in order.

    ``read`` is a pure function of the position, so what comes out is the same for any number of processes, and the
    processes can be started anew at any position when one of them is killed.

    Args:
        workers: Processes that read; 0 reads in a thread of this process, which is enough where reading is cutting
            boxes out of memory maps. ``read`` is pickled for processes.
        pin: Call ``pin_memory()`` of each item ahead of time, so that a GPU copies it while the processor goes on.
    """

    def __init__(
        self,
        read: Callable[[int], Item],
        start: int,
        stop: int,
        *,
        workers: int = 0,
        pin: bool = False,
        on_event: Listener = silent,
    ) -> None:
        self._read, self._start, self._stop = read, start, stop
        self._workers, self._pin, self._on_event = workers, pin, on_event
        self.waited = 0.0
        """Seconds that the reader of this iterator has waited."""

    def __iter__(self) -> Iterator[Item]:
        source = self._processes() if self._workers else self._thread()
        while True:
            since = time.monotonic()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.waited += time.monotonic() - since
            yield item

    def _ready(self, at: int) -> Item:
        item: Any = self._read(at)
        return item.pin_memory() if self._pin else item

    def _thread(self) -> Iterator[Item]:
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(self._ready, at) for at in range(self._start, min(self._stop, self._start + AHEAD))]
            for at in range(self._start, self._stop):
                item = ahead.pop(0).result()
                if at + AHEAD < self._stop:
                    ahead.append(pool.submit(self._ready, at + AHEAD))
                yield item

    def _processes(self) -> Iterator[Item]:
        at, deaths = self._start, 0
        while at < self._stop:
            try:
                for item in self._from(at):
                    yield item
                    at, deaths = at + 1, 0
            except RuntimeError as fault:
                if not any(sign in str(fault) for sign in ("DataLoader worker", "Pin memory thread")):
                    raise
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise InputError(
                        f"The processes that read the data died {deaths} times in a row ({fault}); the system may be "
                        "out of memory. Use fewer of them (optimization.workers) and continue with --resume."
                    ) from fault
                self._on_event(Event("loader", text="A process that read the data was killed; started anew."))

    def _from(self, at: int) -> Iterator[Item]:
        return iter(
            DataLoader(
                _Positions(self._read, at, self._stop),
                batch_size=None,
                num_workers=min(self._workers, self._stop - at),
                prefetch_factor=AHEAD,
                pin_memory=self._pin,
                multiprocessing_context=multiprocessing.get_context("spawn"),
            )
        )


class _Positions(Dataset[Item]):
    def __init__(self, read: Callable[[int], Item], start: int, stop: int) -> None:
        self._read, self._start, self._length = read, start, stop - start

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Item:
        if index >= self._length:
            raise IndexError(index)
        return self._read(self._start + index)
