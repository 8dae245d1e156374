"""The volume of the uncertainty, on the real scene with a toy worker."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from fake_worker import toy_labels, toy_uncertainty
from slicer_scene import SlicerScene, affine, rotation
from toy_models import LABELS, image

from MSKDSegmentationLib.errors import SegmentationError
from MSKDSegmentationLib.uncertainty import is_uncertainty

OBLIQUE = affine(rotation((20, -35, 50)) @ np.diag([0.7, 0.9, 2.5]), (-30, 12, 7))
RIGID = affine(rotation((5, 80, -10)), (1, 2, 3))


@pytest.fixture
def empty(world: SlicerScene):
    return world.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "unsure")


def matrix_of(volume) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def expected(array: np.ndarray) -> np.ndarray:
    return toy_uncertainty(toy_labels(array, len(LABELS)))


def test_it_lies_on_the_volume(world, logic, toy, empty) -> None:
    volume = world.volume(image(), OBLIQUE)
    volume.SetAndObserveTransformNodeID(world.transform(RIGID).GetID())
    logic.process(volume, toy, uncertainty=empty)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(empty), expected(image()))
    np.testing.assert_allclose(matrix_of(empty), matrix_of(volume))
    assert empty.GetTransformNodeID() == volume.GetTransformNodeID()


def test_it_stands_beside_the_volume(world, logic, toy, empty) -> None:
    volume = world.volume(image())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(world.scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "CT of yesterday")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    logic.process(volume, toy, uncertainty=empty)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(empty)) == study


def test_the_input_is_not_its_place_even_if_it_once_was(world, logic, toy, empty) -> None:
    logic.process(world.volume(image()), toy, uncertainty=empty)
    with pytest.raises(SegmentationError, match="which the uncertainty would replace"):
        logic.process(empty, toy, uncertainty=empty)


def test_a_fault_while_it_is_written_takes_the_segments_back(world, logic, toy, empty, monkeypatch) -> None:
    def fail(*arguments) -> None:
        raise RuntimeError("VTK said no")

    monkeypatch.setattr("MSKDSegmentationLib.run.write_uncertainty", fail)
    with pytest.raises(SegmentationError, match="VTK said no"):
        logic.process(world.volume(image()), toy, uncertainty=empty)
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_without_being_asked_for_there_is_none(world, logic, worker, toy) -> None:
    logic.process(world.volume(image()), toy)
    assert worker.heard[1]["uncertainty"] is None
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 1


def test_of_a_region_the_rest_is_sure(world, logic, toy, empty) -> None:
    logic.process(world.volume(image()), toy, region=((-100, -100, -100), (100, 100, 100)), uncertainty=empty)
    found, (depth, height, width) = slicer.util.arrayFromVolume(empty), image().shape
    box = np.s_[depth // 3 :, height // 3 :, width // 3 :]
    np.testing.assert_array_equal(found[box], expected(image())[box])
    found[box] = 0
    assert not found.any()


def test_a_second_run_replaces_it_and_keeps_how_it_is_shown(world, logic, toy, empty) -> None:
    volume = world.volume(image())
    logic.process(volume, toy, uncertainty=empty)
    display = empty.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 100)
    display.SetWindowLevelMinMax(20, 60)
    slicer.util.updateVolumeFromArray(volume, image()[::-1])
    logic.process(volume, toy, uncertainty=empty)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(empty), expected(image()[::-1]))
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (20, 60)


def test_an_image_is_never_replaced(world, logic, worker, toy) -> None:
    volume, other = world.volume(image()), world.volume(image(), name="CT")
    for node in (volume, other):
        with pytest.raises(SegmentationError, match="holds an image, which the uncertainty would replace"):
            logic.process(volume, toy, uncertainty=node)
    assert not worker.heard
    assert not is_uncertainty(other)


def test_removed_meanwhile_it_is_left_out(world, logic, toy, empty) -> None:
    volume = world.volume(image())

    def remove(event: dict) -> None:
        if empty.GetScene() is not None:
            world.scene.RemoveNode(empty)

    segmentation = logic.process(volume, toy, uncertainty=empty, on_event=remove)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == len(LABELS)
