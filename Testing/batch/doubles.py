"""An engine that notes what it begins and dies on command; a module of its own, so that other processes find it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mskd.batch import EngineOptions
from mskd.inference import Engine

PATIENCE = 60


@dataclass(frozen=True)
class WatchedOptions(EngineOptions):
    """Options of an engine that is watched.

    An image is known by its first voxel.

    Args:
        log: Folder of the notes.
        deadly: The image that kills the process, always.
        deadly_once: The image that kills the process the first time.
        faulty: The image that raises what no image should.
        meet: How many processes wait for one another before their first image.
    """

    log: str = ""
    deadly: int = 0
    deadly_once: int = 0
    faulty: int = 0
    meet: int = 1

    def build(self) -> Any:
        return _Watched(self, super().build())

    def altering(self) -> dict[str, Any]:
        return {}


class _Watched:
    def __init__(self, options: WatchedOptions, engine: Engine) -> None:
        self._options, self._engine, self._log = options, engine, Path(options.log)
        self.package, self.manifest, self.warm_up = engine.package, engine.manifest, engine.warm_up

    def run(self, image: Any, *words: Any, **more: Any) -> Any:
        name, options = int(image.array.flat[0]), self._options
        with (self._log / f"{os.getpid()}.begun").open("a") as notes:
            notes.write(f"{name}\n")
        wait_for(lambda: len(list(self._log.glob("*.begun"))) >= options.meet)
        if name == options.faulty:
            raise TypeError("no such thing")
        if name == options.deadly or (name == options.deadly_once and begun(self._log).count(name) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._engine.run(image, *words, **more)


def begun(log: Path) -> list[int]:
    """Every image that any engine began, as often as it did."""
    return sorted(int(name) for notes in log.glob("*.begun") for name in notes.read_text().split())


def wait_for(condition: Any) -> None:
    """Until it holds, or far too long."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
