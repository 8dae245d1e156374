"""Phases of a run: timed for the report, told as events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mskd.events import Event, Listener


class Timer:
    """Collects milliseconds by phase; a phase that runs again (after a fallback) adds to its own.

    Args:
        on_event: Told when a phase begins and when something in it is finished.
        device: Its queued work is waited for before a clock is read.
    """

    def __init__(self, on_event: Listener, device: torch.device) -> None:
        self._on_event = on_event
        self._device = device
        self._phase = ""
        self._spent: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside, finished or not."""
        self._phase = name
        self._on_event(Event(name))
        start = time.perf_counter()
        try:
            yield
            self._wait()
        finally:
            self._spent[name] = self._spent.get(name, 0.0) + time.perf_counter() - start

    def progress(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps of the current phase."""
        self._on_event(Event(self._phase, done, total))

    def say(self, sentence: str) -> None:
        """A sentence for the user."""
        self._on_event(Event(self._phase, text=sentence))

    def milliseconds(self) -> dict[str, float]:
        """By phase, and ``total`` since the timer was made."""
        spent = {**self._spent, "total": time.perf_counter() - self._start}
        return {name: round(1000 * seconds, 2) for name, seconds in spent.items()}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
