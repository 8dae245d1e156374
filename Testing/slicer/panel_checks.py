"""What the panel does, checked on PySide6; run by ``test_panel.py`` in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
from fake_worker import REFUSAL, toy_labels, toy_uncertainty
from panel_harness import PanelHarness
from PySide6 import QtCore, QtGui
from pythonqt_double import unwrap
from slicer_scene import SlicerScene
from toy_models import LABELS, image, write_model


def test_apply_waits_for_a_volume_and_says_so(panel: PanelHarness, world: SlicerScene) -> None:
    assert not panel.ui.applyButton.enabled
    assert panel.ui.applyButton.toolTip == "Choose an input volume."
    panel.ready(world.volume(image()))
    assert panel.ui.applyButton.toolTip == "Segment the volume."


def test_the_first_image_is_chosen_at_once(volume, panel: PanelHarness) -> None:
    assert panel.parameters.inputVolume is volume
    assert panel.ui.inputSelector.currentNode() is volume


def test_label_maps_are_no_images(world: SlicerScene, panel: PanelHarness) -> None:
    world.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    panel.reload()
    assert panel.parameters.inputVolume is None


def test_a_volume_becomes_usable_when_its_image_is_loaded(panel: PanelHarness, world: SlicerScene) -> None:
    empty = world.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "later")
    panel.parameters.inputVolume = empty
    assert "'later' holds no image" in panel.ui.applyButton.toolTip
    slicer.util.updateVolumeFromArray(empty, image())
    assert panel.ui.applyButton.enabled


def test_a_region_is_usable_once_it_is_drawn(panel: PanelHarness, world: SlicerScene, volume) -> None:
    panel.ready(volume)
    region = world.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    panel.parameters.region = region
    assert "is empty" in panel.ui.applyButton.toolTip
    region.SetSize(10, 10, 10)
    assert panel.ui.applyButton.enabled


def test_a_new_region_lies_in_the_volume(panel: PanelHarness, volume) -> None:
    panel.ready(volume)
    region = panel.ui.regionSelector.addNode()
    assert panel.parameters.region is region
    assert region.GetSize() == pytest.approx((3, 2.5, 2))
    assert region.GetCenter() == pytest.approx((2.5, 2, 1.5))
    assert panel.ui.applyButton.enabled


def test_a_new_region_without_a_volume_is_left_alone(panel: PanelHarness) -> None:
    region = panel.ui.regionSelector.addNode()
    assert region.GetSize() == (0, 0, 0)


def test_a_model_made_for_a_crop_asks_for_a_region_of_its_size(
    panel: PanelHarness, volume, world: SlicerScene, tmp_path: Path
) -> None:
    write_model(tmp_path, "crop", patch=[1, 2, 1], spacing=[1.0, 0.5, 1.5], orientation="PRS")
    panel.reload()
    panel.ready(volume)
    assert not panel.ui.regionLabel.visible
    panel.choose_model("crop")
    assert panel.ui.applyButton.enabled
    assert "much larger than the 1 x 2 x 1 mm" in panel.ui.regionLabel.text
    region = panel.ui.regionSelector.addNode()
    assert region.GetSize() == pytest.approx((1, 1.5, 1))
    assert panel.ui.regionLabel.text == ""
    panel.parameters.region = None
    panel.parameters.inputVolume = world.volume(image()[:2])
    assert panel.ui.regionLabel.text == ""


def test_a_model_that_needs_two_images_says_so(panel: PanelHarness, volume) -> None:
    panel.choose_model("pair")
    panel.parameters.inputVolume = volume
    assert "takes 2 images" in panel.ui.applyButton.toolTip
    assert "takes 2 images" in panel.ui.modelLabel.text


def test_every_control_reaches_the_parameter_node_and_back(panel: PanelHarness, world: SlicerScene) -> None:
    nodes = {
        "inputVolume": (panel.ui.inputSelector, world.volume(image())),
        "region": (panel.ui.regionSelector, world.region((0, 0, 0), (4, 4, 4))),
        "outputSegmentation": (
            panel.ui.outputSelector,
            world.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S"),
        ),
        "uncertaintyVolume": (
            panel.ui.uncertaintySelector,
            world.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "U"),
        ),
    }
    for parameter, (selector, node) in nodes.items():
        for value in (node, None, node):
            selector.setCurrentNode(value)
            assert getattr(panel.parameters, parameter) is value
        for value in (None, node):
            setattr(panel.parameters, parameter, value)
            assert selector.currentNode() is value
    for parameter, combo in (("model", panel.ui.modelSelector), ("device", panel.ui.deviceSelector)):
        values = [combo.itemData(index) for index in range(combo.count)]
        assert len(values) > 1
        for index, value in enumerate(values):
            combo.currentIndex = index
            assert getattr(panel.parameters, parameter) == value
        for index, value in enumerate(values):
            setattr(panel.parameters, parameter, value)
            assert combo.currentIndex == index


def test_a_model_of_another_computer_is_named(panel: PanelHarness, volume) -> None:
    panel.parameters.inputVolume = volume
    panel.parameters.model = "liver-ct"
    assert panel.ui.modelSelector.currentIndex == -1
    assert "'liver-ct' is not installed here" in panel.ui.applyButton.toolTip


def test_a_description_of_one_line_is_no_markup(panel: PanelHarness, tmp_path: Path) -> None:
    write_model(tmp_path, "plain", description="A < B & it's so", intended_use="")
    panel.reload()
    panel.choose_model("plain")
    document = QtGui.QTextDocument()
    label = unwrap(panel.ui.modelLabel)
    assert label.textFormat() is QtCore.Qt.TextFormat.RichText
    document.setHtml(label.text())
    assert document.toPlainText() == "A < B & it's so"


def test_the_model_is_described(panel: PanelHarness) -> None:
    panel.choose_model("toy")
    assert panel.ui.modelLabel.text == "Two organs and a lesion in abdominal MR.<br>Tests only."


def test_a_run_ends_with_the_models_segments(panel: PanelHarness, world: SlicerScene, volume) -> None:
    panel.ready(volume)
    panel.run()
    segmentation = panel.parameters.outputSegmentation
    assert panel.ui.outputSelector.currentNode() is segmentation
    content = segmentation.GetSegmentation()
    assert [content.GetNthSegment(i).GetName() for i in range(3)] == ["Left kidney", "Spleen", "Lesion"]
    for label in LABELS:
        found = world.segment_array(segmentation, label["name"], volume)
        assert np.array_equal(found, toy_labels(image(), 3) == label["value"])
    assert panel.ui.statusLabel.text.startswith("Done in ")
    assert panel.ui.statusLabel.text.endswith("- The image is tilted.")
    assert panel.dialogs == []


def test_a_new_volume_for_the_uncertainty_is_filled_and_never_an_input(panel: PanelHarness, volume) -> None:
    panel.ready(volume)
    node = panel.ui.uncertaintySelector.addNode()
    assert panel.parameters.uncertaintyVolume is node
    assert node.GetName() == f"{volume.GetName()} uncertainty"
    panel.run()
    assert np.array_equal(slicer.util.arrayFromVolume(node), toy_uncertainty(toy_labels(image(), 3)))
    panel.parameters.inputVolume = None
    panel.parameters.uncertaintyVolume = None
    panel.reload()
    assert panel.parameters.inputVolume is volume


def test_an_image_is_not_replaced_by_the_uncertainty(panel: PanelHarness, world: SlicerScene, volume) -> None:
    panel.ready(volume)
    panel.parameters.uncertaintyVolume = volume
    assert not panel.ui.applyButton.enabled
    assert "holds an image, which the uncertainty would replace" in panel.ui.applyButton.toolTip
    panel.parameters.uncertaintyVolume = None
    assert panel.ui.applyButton.enabled


def test_a_second_run_updates_the_same_segments(panel: PanelHarness, world: SlicerScene, volume) -> None:
    panel.ready(volume)
    panel.run()
    first = panel.parameters.outputSegmentation
    panel.run()
    assert panel.parameters.outputSegmentation is first
    assert first.GetSegmentation().GetNumberOfSegments() == 3
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1


def test_while_running_the_choices_are_closed_and_apply_is_cancel(panel: PanelHarness, volume) -> None:
    panel.ready(volume, "slow")
    panel.apply()
    assert panel.ui.applyButton.text == "Cancel"
    assert panel.ui.applyButton.enabled
    assert not panel.ui.inputsButton.enabled
    assert not panel.ui.advancedButton.enabled
    panel.spin(lambda: panel.ui.progressBar.maximum == 100)
    panel.apply()
    assert not panel.ui.applyButton.enabled
    panel.wait()
    assert panel.ui.statusLabel.text == "Cancelled; nothing was changed."
    assert panel.ui.applyButton.enabled
    assert panel.ui.inputsButton.enabled
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert panel.dialogs == []


def test_cancel_kills_a_worker_that_does_not_listen(panel: PanelHarness, volume) -> None:
    panel.widget.logic._background._grace = 0.3
    panel.ready(volume, "stubborn")
    panel.apply()
    panel.spin(lambda: panel.ui.progressBar.maximum == 100)
    panel.apply()
    panel.wait()
    assert panel.ui.statusLabel.text == "Cancelled; nothing was changed."
    panel.choose_model("toy")
    panel.run()
    assert panel.ui.statusLabel.text.startswith("Done in ")


@pytest.mark.parametrize(("model", "sentence"), [("refuse", REFUSAL), ("crash", "its last words: MemoryError: 3 GB")])
def test_an_error_is_one_dialog_and_the_controls_work_again(panel, world, volume, model, sentence) -> None:
    panel.ready(volume, model)
    panel.run()
    assert len(panel.dialogs) == 1
    assert sentence in panel.dialogs[0]
    assert sentence in panel.ui.statusLabel.text
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    panel.choose_model("toy")
    panel.run()
    assert panel.ui.statusLabel.text.startswith("Done in ")
    assert len(panel.dialogs) == 1


def test_a_run_that_cannot_begin_is_one_dialog_too(panel: PanelHarness, volume, monkeypatch) -> None:
    monkeypatch.setattr("MSKDSegmentationLib.logic.worker_command", lambda: ["/nowhere/PythonSlicer"])
    panel.reload()
    panel.ready(volume)
    panel.apply()
    assert len(panel.dialogs) == 1
    assert "'/nowhere/PythonSlicer' cannot be started" in panel.dialogs[0]
    assert panel.ui.applyButton.text == "Apply"
    assert panel.ui.applyButton.enabled
    panel.notes.clear()


def test_nothing_can_be_changed_or_begun_during_an_installation(panel: PanelHarness, volume, monkeypatch) -> None:
    seen = []

    def install(requirements: Path, interactive: bool) -> None:
        panel.apply()
        seen.append(
            (interactive, panel.ui.applyButton.enabled, panel.ui.inputsButton.enabled, panel.ui.statusLabel.text)
        )

    monkeypatch.setattr(panel.widget.logic, "_install", install)
    monkeypatch.setattr(panel.widget.logic, "missing", lambda: ["torch>=2.4"])
    panel.ready(volume)
    panel.run()
    assert seen == [(True, False, False, "Installing; this may take minutes…")]
    assert panel.ui.statusLabel.text.startswith("Done in ")
    assert panel.dialogs == []


def test_the_first_run_says_beforehand_what_it_installs(panel: PanelHarness, volume, monkeypatch) -> None:
    monkeypatch.setattr("MSKDSegmentationLib.logic.missing", lambda requirements: ["torch>=2.4", "pydantic>=2.7"])
    panel.reload()
    panel.ready(volume)
    assert panel.ui.statusLabel.text == "The first run will ask to install torch>=2.4, pydantic>=2.7."


def test_undo_takes_the_last_run_back(panel: PanelHarness, volume) -> None:
    panel.ready(volume)
    assert not panel.ui.undoButton.enabled
    panel.run()
    assert panel.ui.undoButton.enabled
    panel.ui.undoButton.click()
    assert panel.parameters.outputSegmentation.GetSegmentation().GetNumberOfSegments() == 0
    assert not panel.ui.undoButton.enabled


def test_undo_closes_when_the_result_is_edited(panel: PanelHarness, volume) -> None:
    panel.ready(volume)
    panel.run()
    segmentation = panel.parameters.outputSegmentation
    segment = segmentation.GetSegmentation().GetSegmentIDs()[0]
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.ones((4, 5, 6), np.uint8), segmentation, segment, volume)
    panel.ui.undoButton.click()
    assert slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume).all()
