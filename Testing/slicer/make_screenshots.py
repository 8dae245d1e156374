"""Draw the panel in each of its states: ``python Testing/slicer/make_screenshots.py [FOLDER]``.

The folder is docs/screenshots by default. The pictures are made on PySide6 with stand-ins for Slicer's widgets, at a
fixed width; look at them, never compare pixels. They show the bundled model where there is one, and a toy worker's
progress and results.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
os.environ["QT_QPA_PLATFORM"] = "offscreen"
sys.path[:0] = [str(HERE / "support"), str(ROOT / "MSKDSegmentation")]

import slicer_doubles  # noqa: E402

slicer_doubles.install()

import fake_worker  # noqa: E402
import numpy as np  # noqa: E402
from panel_harness import PanelHarness  # noqa: E402
from slicer_scene import SlicerScene  # noqa: E402
from toy_models import write_model  # noqa: E402

from MSKDSegmentationLib import logic  # noqa: E402
from MSKDSegmentationLib.catalogue import bundled_folder  # noqa: E402


def main(folder: Path) -> None:
    """Write panel-STATE.png for each state into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    logic.worker_command = lambda: [sys.executable, fake_worker.__file__]
    with tempfile.TemporaryDirectory() as models:
        if not any(bundled_folder(ROOT / "MSKDSegmentation").glob("*/model.json")):
            sight = {"patch": [40, 56, 40], "spacing": [1.0, 1.0, 1.0], "intended_use": "For research use only."}
            write_model(Path(models), "toy", title="Abdominal organs (MR)", **sight)
            os.environ["MSKD_MODELS"] = models
        world = SlicerScene()
        panel = PanelHarness()
        for state in (empty, region, ready, advanced, running, done, error):
            state(panel, world)
            panel.screenshot(str(folder / f"panel-{state.__name__}.png"))
        panel.close()
        world.close()
    faults = panel.faults + panel.notes
    if faults:
        sys.exit("\n".join(faults))


def empty(panel: PanelHarness, world: SlicerScene) -> None:
    """As the module opens on an empty scene."""


def region(panel: PanelHarness, world: SlicerScene) -> None:
    """A volume much larger than what the model was made for is chosen."""
    panel.parameters.inputVolume = world.volume(np.zeros((176, 240, 170), np.uint8), name="T1 whole head")


def ready(panel: PanelHarness, world: SlicerScene) -> None:
    """A volume and a region are chosen."""
    array = np.random.default_rng(0).normal(size=(20, 40, 30)).astype(np.float32)
    panel.parameters.inputVolume = world.volume(array, name="T1 MPRAGE")
    panel.parameters.region = world.region((5, 5, 5), (25, 35, 15), name="Region of interest")


def advanced(panel: PanelHarness, world: SlicerScene) -> None:
    """With the second section open."""
    panel.ui.advancedButton.collapsed = False


def running(panel: PanelHarness, world: SlicerScene) -> None:
    """In the middle of a run."""
    panel.ui.advancedButton.collapsed = True
    os.environ["FAKE_WORKER"] = "slow"
    panel.apply()
    panel.spin(lambda: panel.ui.progressBar.value > 20)


def done(panel: PanelHarness, world: SlicerScene) -> None:
    """A run has ended well."""
    panel.apply()
    panel.wait()
    panel.widget.logic.stop()
    os.environ.pop("FAKE_WORKER")
    panel.run()


def error(panel: PanelHarness, world: SlicerScene) -> None:
    """A run has ended with an error."""
    panel.widget.logic.stop()
    os.environ["FAKE_WORKER"] = "refuse"
    panel.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screenshots")
