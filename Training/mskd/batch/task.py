"""What all cases of a run share, small enough to travel to another process or machine."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mskd.errors import PackageError
from mskd.inference import Engine, Region, tune_process
from mskd.package import open_package

WHERE = ("model", "device", "memory")
"""Options that say where and how an engine computes; all others may change its labels."""


@dataclass(frozen=True)
class EngineOptions:
    """Everything that makes an engine.

    Args:
        model: Path of a package, or the name of a bundled model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        backend: Name of a way to run the network, or ``auto``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        memory: Bytes that the process may hold at most.
    """

    model: str
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    memory: int | None = None

    def build(self) -> Engine:
        """Open the model and make it ready.

        Raises:
            MSKDError: whatever stands in the way.
        """
        tune_process()
        return Engine(
            open_package(self.model),
            self.device,
            backend=self.backend,
            precision=self.precision,
            memory=self.memory,
        )

    def altering(self) -> dict[str, Any]:
        """The options that may change labels; one that is added later counts until ``WHERE`` names it."""
        return {name: value for name, value in asdict(self).items() if name not in WHERE}


@dataclass(frozen=True)
class Task:
    """A folder to fill.

    Args:
        options: The engine.
        fingerprint: Of the model, as it was when the run began.
        folder: Where the results go.
        region: Where to look.
        overwrite: Replace results that were made otherwise.
        run: Tells what this run made, and perhaps forgot to tell, from what was there before.
    """

    options: EngineOptions
    fingerprint: str
    folder: Path
    region: Region | None = None
    overwrite: bool = False
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    def build_engine(self) -> Engine:
        """The engine, with the very model the run began with.

        Raises:
            PackageError: another model lies there now, or on this machine.
        """
        engine = self.options.build()
        if engine.package.fingerprint != self.fingerprint:
            raise PackageError(
                f"{self.options.model}: this is not the model that the run began with; keep it unchanged while a run "
                "goes on, and the same on all machines."
            )
        return engine
