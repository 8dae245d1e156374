"""Seconds by phase, also of code that belongs to others."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Clock:
    """Wall-clock seconds by phase; what an inner phase takes is not counted in the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self._inner.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Count every later call of ``owner.attribute`` as a phase."""
        original: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(original)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.phase(name):
                return original(*arguments, **options)

        setattr(owner, attribute, timed)


def write_result(path: Path, clock: Clock, **more: Any) -> None:
    """What a child tells ``engine.py``: seconds by phase with their total, and whatever else it knows."""
    seconds = {**clock.seconds, "total": sum(clock.seconds.values())}
    path.write_text(json.dumps({"seconds": seconds, **more}), encoding="utf-8")
