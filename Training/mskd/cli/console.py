"""Progress on a terminal, and Ctrl-C as a polite request."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mskd.errors import Cancelled, Preempted
from mskd.events import CancelCheck, Event, Listener


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


@contextmanager
def progress_listener(title: str = "") -> Iterator[Listener]:
    """A listener that draws one progress bar per phase; without a terminal it prints one line per finished phase."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def listen(event: Event) -> None:
            if event.phase == "validate":
                progress.console.print(
                    f"{title}step {event.done} of {event.total}: {event.text}", highlight=False, markup=False
                )
                return
            if event.phase not in tasks:
                tasks[event.phase] = progress.add_task(f"{title}{event.phase}", total=None, text="")
            total = event.total or None
            progress.update(tasks[event.phase], completed=event.done, total=total, text=event.text)
            if event.total and event.done >= event.total:
                if not console.is_terminal:
                    console.print(f"{title}{event.phase}: {event.total} done", highlight=False, markup=False)
                progress.stop_task(tasks.pop(event.phase))

        yield listen


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
