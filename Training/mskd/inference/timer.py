"""Phases of a run: timed for the report, told as events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from mskd.events import Event, Listener

Item = TypeVar("Item")


class Timer:
    """Collects milliseconds by phase; a phase that runs again (after a fallback) adds to its own.

    Args:
        on_event: Told when a phase begins and when something in it is finished.
        device: Its queued work is waited for before a clock is read.
    """

    def __init__(self, on_event: Listener, device: torch.device) -> None:
        self._on_event = on_event
        self._device = device
        self._phases = [""]
        self._spent: dict[str, float] = {}
        self._start = self._since = time.perf_counter()

    @contextmanager
    def phase(self, name: str, *, silent: bool = False) -> Iterator[None]:
        """Time what happens inside, finished or not; the clock of a phase around it stands still."""
        if not silent:
            self._on_event(Event(name))
        self._switch()
        self._phases.append(name)
        try:
            yield
            self._wait()
        finally:
            self._switch()
            self._phases.pop()

    def within(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; getting each is timed as the phase ``name``."""
        iterator = iter(items)
        while True:
            with self.phase(name, silent=True):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
            del item  # it may be large, and the next one is made before the name is given to that

    def progress(self, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps of a phase."""
        self._on_event(Event(phase, done, total))

    def say(self, sentence: str) -> None:
        """A sentence for the user."""
        self._on_event(Event(self._phases[-1], text=sentence))

    def milliseconds(self) -> dict[str, float]:
        """By phase, and ``total`` since the timer was made."""
        spent = {**self._spent, "total": time.perf_counter() - self._start}
        return {name: round(1000 * seconds, 2) for name, seconds in spent.items()}

    def _switch(self) -> None:
        now, name = time.perf_counter(), self._phases[-1]
        if name:
            self._spent[name] = self._spent.get(name, 0.0) + now - self._since
        self._since = now

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
