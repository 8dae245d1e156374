"""The panel while scenes, nodes and the module itself come and go; run by ``test_panel.py`` in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from panel_harness import PanelHarness
from slicer_scene import SlicerScene
from toy_models import image


def test_the_scene_may_close_at_any_time(panel: PanelHarness, world: SlicerScene, volume) -> None:
    panel.ready(volume, "slow")
    panel.apply()
    world.scene.Clear(0)
    panel.spin()
    assert panel.ui.applyButton.text == "Apply"
    assert panel.ui.applyButton.toolTip == "Choose an input volume."
    panel.ready(world.volume(image()))
    panel.run()
    assert panel.ui.statusLabel.text.startswith("Done in ")
    assert panel.dialogs == []


@pytest.mark.parametrize("parameter", ["inputVolume", "region", "outputSegmentation"])
def test_a_chosen_node_may_be_deleted(panel: PanelHarness, world: SlicerScene, volume, parameter: str) -> None:
    panel.ready(volume)
    panel.parameters.region = world.region((0, 0, 0), (4, 4, 4))
    panel.parameters.outputSegmentation = world.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    world.scene.RemoveNode(getattr(panel.parameters, parameter))
    assert getattr(panel.parameters, parameter) is None
    assert panel.ui.applyButton.enabled is (parameter != "inputVolume")


def test_the_input_may_be_deleted_during_a_run(panel: PanelHarness, world: SlicerScene, volume) -> None:
    panel.ready(volume)
    panel.apply()
    world.scene.RemoveNode(volume)
    panel.wait()
    assert "removed during the run" in panel.dialogs[0]
    assert len(panel.dialogs) == 1


def test_a_reload_keeps_the_choices(panel: PanelHarness, volume) -> None:
    panel.ready(volume, "slow")
    panel.ui.deviceSelector.currentIndex = 1
    panel.reload()
    assert panel.ui.inputSelector.currentNode() is volume
    assert panel.ui.modelSelector.currentData == "slow"
    assert panel.ui.deviceSelector.currentData == "cpu"


def test_a_reload_during_a_run_ends_it(panel: PanelHarness, volume) -> None:
    panel.ready(volume, "slow")
    panel.apply()
    panel.reload()
    assert panel.ui.applyButton.text == "Apply"
    assert panel.ui.applyButton.enabled


def test_an_image_loaded_elsewhere_is_chosen_on_entering(panel: PanelHarness, world: SlicerScene) -> None:
    volume = world.volume(image())
    assert panel.parameters.inputVolume is None
    panel.widget.enter()
    assert panel.parameters.inputVolume is volume


def test_a_segmentation_created_in_the_list_is_seen(panel: PanelHarness, volume) -> None:
    panel.ready(volume)
    segmentation = panel.ui.outputSelector.addNode()
    assert segmentation.GetDisplayNode() is None
    panel.run()
    assert panel.parameters.outputSegmentation is segmentation
    assert segmentation.GetDisplayNode().GetVisibility()


def test_widgets_once_disconnected_stay_so(panel: PanelHarness, world: SlicerScene, volume) -> None:
    panel.ready(volume)
    parameters, other = panel.parameters, world.volume(image(1))
    panel.widget._hide_parameters()
    parameters.inputVolume = None
    assert panel.ui.inputSelector.currentNode() is volume
    panel.ui.inputSelector.setCurrentNode(other)
    assert parameters.inputVolume is None


def test_the_choices_come_back_with_a_saved_scene(
    panel: PanelHarness, world: SlicerScene, volume, tmp_path: Path
) -> None:
    panel.ready(volume)
    panel.parameters.region = world.region((1, 1, 1), (4, 4, 4))
    panel.run()
    assert world.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    world.scene.Clear(0)
    assert panel.parameters.inputVolume is None
    assert world.scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    assert panel.parameters.inputVolume.GetImageData() is not None
    assert panel.ui.regionSelector.currentNode() is panel.parameters.region is not None
    assert panel.parameters.outputSegmentation is not None
    panel.run()
    assert panel.parameters.outputSegmentation.GetSegmentation().GetNumberOfSegments() == 3
    assert panel.dialogs == []


def test_without_a_parent_the_widget_makes_its_own(panel: PanelHarness, volume) -> None:
    from MSKDSegmentation import MSKDSegmentationWidget

    widget = MSKDSegmentationWidget()
    assert widget.panel is not None
    widget.cleanup()


def test_a_reload_reads_the_parts_again(panel: PanelHarness, monkeypatch) -> None:
    before = {name: part for name, part in sys.modules.items() if name.startswith("MSKDSegmentationLib")}
    panel.widget.onReload()
    assert not any(name in sys.modules for name in before)
    sys.modules.update(before)


def test_coming_back_to_the_module_keeps_a_run(panel: PanelHarness, volume) -> None:
    panel.ready(volume, "slow")
    panel.apply()
    panel.widget.enter()
    assert panel.ui.applyButton.text == "Cancel"
    panel.apply()
    panel.wait()
