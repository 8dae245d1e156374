"""What every export format is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from mskd.package import Package
from mskd.registry import Registry

Forward = Callable[[Tensor], Tensor]
"""From ``[N, C, *spatial]`` to logits ``[N, K, *spatial]``, float32 on the CPU, axes as in the package."""


class Format(Protocol):
    """Writes a package for another program.

    Attributes:
        suffix: Of the file; empty for a format that is a folder.
    """

    suffix: ClassVar[str]

    @classmethod
    def available(cls) -> str | None:
        """None where it can be used, or else a sentence that says what is missing."""
        ...

    def write(self, package: Package, target: Path) -> None:
        """Write to ``target``, a new file, or an empty folder that is there."""
        ...

    def load(self, target: Path) -> Forward:
        """The network as it was written, run by the program it was written for."""
        ...


FORMATS: Registry[type[Format]] = Registry("export format", "mskd.export")
