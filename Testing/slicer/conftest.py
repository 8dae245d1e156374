"""The module's own folders on the path, and a fresh scene for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE / "support"), str(ROOT / "MSKDSegmentation")]

import fake_worker  # noqa: E402
import slicer_doubles  # noqa: E402
from fake_worker import InProcess  # noqa: E402
from slicer_scene import SlicerScene  # noqa: E402
from toy_models import image, write_model  # noqa: E402

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


@pytest.fixture
def panel(world: SlicerScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The panel with toy models and a toy worker in a QProcess; nothing may go wrong unseen."""
    from panel_harness import PanelHarness  # brings Qt, which stays out of the other tests

    for name in ("toy", "slow", "refuse", "crash", "stubborn"):
        write_model(tmp_path, name)
    write_model(tmp_path, "pair", channels=[{"name": name, "modality": "MR"} for name in "ab"])
    monkeypatch.setenv("MSKD_MODELS", str(tmp_path))
    monkeypatch.setattr("MSKDSegmentationLib.catalogue.bundled_folder", lambda folder: tmp_path / "none")
    monkeypatch.setattr("MSKDSegmentationLib.logic.worker_command", lambda: [sys.executable, fake_worker.__file__])
    harness = PanelHarness()
    yield harness
    harness.close()
    assert harness.faults == []
    assert harness.notes == []


@pytest.fixture
def volume(world: SlicerScene):
    """A volume in the scene."""
    return world.volume(image())
