"""Progress on a terminal, and Ctrl-C as a polite request."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mskd.errors import Cancelled, Preempted
from mskd.events import CancelCheck, Event, Listener, duration

VALIDATE = "validate"


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Pace:
    """How long a phase will still take, judged by what it took since its first event.

    The first step is left out: it pays for what is set up once, and a resumed run does not start at 0.
    """

    def __init__(self, event: Event) -> None:
        self._since, self._started = event.done, time.monotonic()

    def left(self, event: Event) -> str:
        """ "3 h 20 min left"; empty while nothing is known and when nothing is left."""
        done, remaining = event.done - self._since, event.total - event.done
        if done <= 0 or remaining <= 0:
            return ""
        return f"{duration((time.monotonic() - self._started) / done * remaining)} left"


class _Listener:
    """One bar a phase, one line a validation; without a terminal, the lines and one more for each finished phase."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress, self._title = progress, title
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._running = ""

    def __call__(self, event: Event) -> None:
        if event.phase == VALIDATE:
            self._epoch(event)
            return
        self._running = event.phase
        pace = self._paces.setdefault(event.phase, Pace(event))
        if event.phase not in self._tasks:
            name = f"{self._title}{event.phase}"
            self._tasks[event.phase] = self._progress.add_task(name, total=None, text="", left="")
        task, total = self._tasks[event.phase], event.total or None
        self._progress.update(task, completed=event.done, total=total, text=event.text, left=pace.left(event))
        if total and event.done >= total:
            if self._progress.disable:
                self._print(f"{self._title}{event.phase}: {total} done")
            self._progress.stop_task(self._tasks.pop(event.phase))
            del self._paces[event.phase]

    def _epoch(self, event: Event) -> None:
        pace = self._paces.get(self._running)
        left = pace.left(event) if pace else ""
        share = f" ({100 * event.done / event.total:.0f} %)" if event.total else ""
        line = f"{self._title}step {event.done} of {event.total}{share}: {event.text}"
        self._print(f"{line}, {left}" if left else line)

    def _print(self, line: str) -> None:
        # A log takes the line as it is; rich would break it at 80 columns.
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=self._progress.disable)


@contextmanager
def progress_listener(title: str = "") -> Iterator[Listener]:
    """A listener that draws one progress bar a phase, with the time left, and prints one line a validation.

    Without a terminal (a log file, a batch system) it prints plain lines alone, each written out at once.
    """
    terminal = sys.stderr.isatty()
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[text]}", markup=False),
    )
    console = Console(stderr=True, force_terminal=terminal)
    with Progress(*columns, console=console, disable=not terminal) as progress:
        yield _Listener(progress, title)


@contextmanager
def interruptible() -> Iterator[CancelCheck]:
    """A cancel check that turns true at the first Ctrl-C or SIGTERM; a second Ctrl-C ends the process at once.

    Raises:
        Preempted: in place of what was cancelled, when the system asked (SIGTERM) and not the user.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if asked.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield lambda: bool(asked)
        return
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    except Cancelled as stopped:
        if signal.SIGTERM in asked:
            raise Preempted(str(stopped)) from stopped
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
