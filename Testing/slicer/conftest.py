"""The module's own folders on the path, and a fresh scene for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE / "support"), str(ROOT / "MSKDSegmentation")]

import slicer_doubles  # noqa: E402
from fake_worker import InProcess  # noqa: E402
from slicer_scene import SlicerScene  # noqa: E402
from toy_models import write_model  # noqa: E402

slicer_doubles.install()


@pytest.fixture
def world() -> Iterator[SlicerScene]:
    """An empty scene with all its logics."""
    scene = SlicerScene()
    yield scene
    scene.close()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The folder of a toy model that answers at once."""
    return write_model(tmp_path / "models", "toy")


@pytest.fixture
def worker() -> InProcess:
    """The worker of ``logic``, which remembers what it heard."""
    return InProcess()


@pytest.fixture
def logic(world: SlicerScene, worker: InProcess) -> Iterator[object]:
    """The module's logic with a toy worker inside this process."""
    from MSKDSegmentation import MSKDSegmentationLogic

    logic = MSKDSegmentationLogic(
        transport=lambda: worker, blocking_transport=lambda: worker, install=lambda requirements, interactive: None
    )
    yield logic
    logic.stop()
