"""Progress as data: a phase with a count, told to whoever listens (console, JSON lines, Slicer, a test)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """``done`` of ``total`` steps of ``phase`` are finished. ``text`` is an optional sentence for the user."""

    phase: str
    done: int = 0
    total: int = 0
    text: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "7 min 05 s", "3 h 20 min", "2 d 4 h"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if not minutes:
        return f"{rest} s"
    if not hours:
        return f"{minutes} min {rest:02d} s"
    return f"{hours} h {minutes_left:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


Listener = Callable[[Event], None]
CancelCheck = Callable[[], bool]


def silent(event: Event) -> None:
    """A listener that ignores everything."""


def never() -> bool:
    """A cancel check that never cancels."""
    return False
