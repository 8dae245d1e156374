"""What a demo run needs to know, and where it puts things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mskd.data.phantom import SHAPE, SPACING
from mskd.events import CancelCheck, Listener, never, silent


@dataclass(frozen=True)
class DemoSettings:
    """Args:
    output: The demo's folder; only the names below are ever written in it.
    cases: Phantom subjects.
    recipe: Name or path of the recipe that trains teacher and student.
    overrides: ``key=value`` changes of the recipe.
    fresh: Train again even where a finished run with the same settings lies in the folder.
    template: Fetch the brain template and segment it.
    """

    output: Path
    cases: int = 30
    seed: int = 0
    shape: tuple[int, int, int] = SHAPE
    spacing: tuple[float, float, float] = SPACING
    recipe: str = "phantom"
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    fresh: bool = False
    template: bool = True
    on_event: Listener = silent
    cancelled: CancelCheck = never

    @property
    def data(self) -> Path:
        return self.output / "data"

    @property
    def runs(self) -> Path:
        return self.output / "runs"

    @property
    def volume(self) -> Path:
        return self.output / "volume.nii.gz"

    @property
    def segmentation(self) -> Path:
        return self.output / "segmentation.seg.nrrd"

    @property
    def overlay(self) -> Path:
        return self.output / "overlay.png"

    @property
    def curves(self) -> Path:
        return self.output / "curves.png"

    @property
    def table(self) -> Path:
        return self.output / "table.md"

    @property
    def report(self) -> Path:
        return self.output / "report.html"

    @property
    def brain(self) -> Path:
        return self.output / "brain"
