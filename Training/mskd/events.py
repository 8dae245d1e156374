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


Listener = Callable[[Event], None]
CancelCheck = Callable[[], bool]


def silent(event: Event) -> None:
    """A listener that ignores everything."""


def never() -> bool:
    """A cancel check that never cancels."""
    return False
