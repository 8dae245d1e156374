"""The module's logic from a volume node to segments, on the real scene with a toy worker."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import slicer
from fake_worker import REFUSAL, InProcess, toy_labels
from slicer_scene import SlicerScene, affine, rotation
from toy_models import LABELS, write_model

from MSKDSegmentationLib.errors import CancelledError, SegmentationError
from MSKDSegmentationLib.run import Run
from MSKDSegmentationLib.segments import write_segments

OBLIQUE = affine(rotation((20, -35, 50)) @ np.diag([0.7, 0.9, 2.5]), (-30, 12, 7))
RIGID = affine(rotation((5, 80, -10)), (1, 2, 3))
SHEAR = affine(np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1.0]]), (3, 0, 0))


def image(seed: int = 0, shape: tuple[int, int, int] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_result(world: SlicerScene, segmentation, volume, array: np.ndarray) -> None:
    expected = toy_labels(array, len(LABELS))
    for label in LABELS:
        found = world.segment_array(segmentation, label["name"], volume)
        assert np.array_equal(found, expected == label["value"]), label["name"]


def counted(world: SlicerScene) -> dict[str, int]:
    """How many nodes of each class the scene holds."""
    nodes = [world.scene.GetNthNode(index).GetClassName() for index in range(world.scene.GetNumberOfNodes())]
    return {name: nodes.count(name) for name in set(nodes)}


@pytest.mark.parametrize(
    ("shape", "matrix", "transform"),
    [
        ((4, 5, 6), np.eye(4), None),
        ((4, 5, 6), OBLIQUE, None),
        ((4, 5, 6), affine(np.diag([-1.0, -1.0, 1.0])), None),
        ((4, 5, 6), affine(np.diag([-0.5, 0.5, 5.0])), None),
        ((4, 5, 6), OBLIQUE, RIGID),
        ((4, 5, 6), OBLIQUE, SHEAR),
        ((1, 5, 6), OBLIQUE, None),
    ],
    ids=["identity", "oblique", "flipped", "anisotropic left-handed", "transformed", "sheared", "single slice"],
)
def test_segments_equal_what_the_worker_returned(world, logic, toy, shape, matrix, transform) -> None:
    array = image(shape=shape)
    volume = world.volume(array, matrix)
    if transform is not None:
        volume.SetAndObserveTransformNodeID(world.transform(transform).GetID())
    segmentation = logic.process(volume, toy)
    assert_result(world, segmentation, volume, array)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_of_every_type_reach_the_worker_unchanged(world, logic, toy, kind) -> None:
    array = (image() * 50 + 100).astype(kind)
    volume = world.volume(array)
    assert_result(world, logic.process(volume, toy), volume, array)


def test_the_worker_gets_what_the_protocol_says(world, logic, worker, toy) -> None:
    volume = world.volume(image(), OBLIQUE)
    region = world.region((-100, -100, -100), (100, 100, 100))
    logic.process(volume, toy, device="cpu", region=region)
    hello, run = worker.heard[:2]
    assert hello == {"type": "hello"}
    assert set(run) == {"type", "id", "model", "device", "input", "output", "uncertainty", "geometry", "region"}
    assert (run["type"], run["model"], run["device"]) == ("run", str(toy), "cpu")
    assert run["geometry"]["spacing"] == pytest.approx([2.5, 0.9, 0.7])
    assert len(run["geometry"]["origin"]) == 3
    assert len(run["geometry"]["direction"]) == 9
    assert run["region"] == {"minimum": pytest.approx([-100] * 3), "maximum": pytest.approx([100] * 3)}


def test_the_private_folder_is_gone_after_every_kind_of_end(world, logic, worker, toy, tmp_path, monkeypatch) -> None:
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    volume = world.volume(image())
    logic.process(volume, toy)
    for name, error in [("refuse", SegmentationError), ("slow", CancelledError), ("crash", SegmentationError)]:
        with pytest.raises(error):
            logic.process(volume, write_model(tmp_path, name))
    assert not list(private.iterdir())


def test_a_second_run_updates_and_returns_the_same_node(world, logic, toy) -> None:
    volume = world.volume(image())
    segmentation = logic.process(volume, toy)
    slicer.util.updateVolumeFromArray(volume, image(7))
    assert logic.process(volume, toy, segmentation) is segmentation
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 3
    assert_result(world, segmentation, volume, image(7))


def test_a_new_result_has_a_display_and_a_name_of_its_own(world, logic, toy) -> None:
    volume = world.volume(image(), name="T1")
    names = [logic.process(volume, toy).GetName(), logic.process(volume, toy).GetName()]
    assert names[0] == "T1 segmentation"
    assert names[1] != names[0]
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0].GetDisplayNode() is not None


@pytest.mark.parametrize(("name", "message"), [("refuse", REFUSAL), ("crash", "MemoryError: 3 GB")])
def test_an_error_leaves_the_scene_untouched(world, logic, toy, tmp_path, name, message) -> None:
    volume = world.volume(image())
    before = counted(world)
    with pytest.raises(SegmentationError, match=message):
        logic.process(volume, write_model(tmp_path, name))
    assert counted(world) == before


def test_after_an_error_the_old_segments_are_still_there(world, logic, toy, tmp_path) -> None:
    volume = world.volume(image())
    segmentation = logic.process(volume, toy)
    with pytest.raises(SegmentationError):
        logic.process(volume, write_model(tmp_path, "refuse"), segmentation)
    assert_result(world, segmentation, volume, image())


def test_a_result_of_another_shape_is_refused(world, logic, worker, toy, monkeypatch) -> None:
    monkeypatch.setattr("fake_worker.toy_labels", lambda array, labels: np.zeros((1, 1, 1), np.uint8))
    before = counted(world)
    with pytest.raises(SegmentationError, match=r"returned uint8 \(1, 1, 1\)"):
        logic.process(world.volume(image()), toy)
    assert counted(world).get("vtkMRMLSegmentationNode") == before.get("vtkMRMLSegmentationNode")


def test_an_unexpected_fault_while_writing_is_an_answer_and_is_taken_back(world, logic, toy, monkeypatch) -> None:
    volume = world.volume(image())
    segmentation = logic.process(volume, toy)
    before = counted(world)

    def fail(*arguments) -> None:
        write_segments(*arguments)
        raise RuntimeError("VTK said no")

    monkeypatch.setattr("MSKDSegmentationLib.run.write_segments", fail)
    slicer.util.updateVolumeFromArray(volume, image(7))
    for output in (segmentation, None):
        with pytest.raises(SegmentationError, match=r"could not be written \(RuntimeError: VTK said no\)"):
            logic.process(volume, toy, output)
    assert counted(world) == before
    assert_result(world, segmentation, volume, image())


def start(logic, volume, toy: Path, segmentation=None) -> list:
    """Begin a run in the background; its outcome arrives in the list when the logic is polled."""
    from MSKDSegmentationLib.catalogue import read_entry

    outcomes: list = []
    logic.start(Run(volume, read_entry(toy), segmentation, "auto", None), lambda event: None, outcomes.append)
    return outcomes


def test_a_volume_that_was_removed_meanwhile_is_an_error(world, logic, toy) -> None:
    volume = world.volume(image())
    outcomes = start(logic, volume, toy)
    world.scene.RemoveNode(volume)
    logic.poll()
    assert "removed during the run" in outcomes[0].error


def test_a_volume_that_has_moved_meanwhile_is_an_error(world, logic, toy) -> None:
    volume = world.volume(image())
    outcomes = start(logic, volume, toy)
    volume.SetAndObserveTransformNodeID(world.transform(RIGID).GetID())
    logic.poll()
    assert "moved during the run" in outcomes[0].error


@pytest.mark.parametrize("replace", [True, False])
def test_an_image_that_has_changed_meanwhile_is_an_error(world, logic, toy, replace: bool) -> None:
    """As when a sequence moves on to its next frame."""
    volume = world.volume(image())
    outcomes = start(logic, volume, toy)
    if replace:
        other = world.volume(image(7))
        volume.SetAndObserveImageData(other.GetImageData())
    else:
        slicer.util.arrayFromVolume(volume)[:] = image(7)
        slicer.util.arrayFromVolumeModified(volume)
    logic.poll()
    assert "changed during the run" in outcomes[0].error


def test_changing_the_display_meanwhile_is_fine(world, logic, toy) -> None:
    volume = world.volume(image())
    volume.CreateDefaultDisplayNodes()
    outcomes = start(logic, volume, toy)
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(10, 5)
    volume.SetName("renamed")
    slicer.util.arrayFromVolume(volume)
    logic.poll()
    assert outcomes[0].segmentation is not None


def test_a_segmentation_that_was_removed_meanwhile_is_replaced_by_a_new_one(world, logic, toy) -> None:
    volume = world.volume(image())
    segmentation = logic.process(volume, toy)
    outcomes = start(logic, volume, toy, segmentation)
    world.scene.RemoveNode(segmentation)
    logic.poll()
    assert outcomes[0].segmentation.GetScene() is world.scene


def test_closing_the_scene_ends_the_run_without_a_trace(world, logic, toy) -> None:
    outcomes = start(logic, world.volume(image()), toy)
    logic.forget_scene()
    world.scene.Clear(0)
    assert outcomes[0].cancelled
    assert not logic.busy
    assert not logic.can_undo()


def test_an_unknown_model_or_device_is_a_sentence(world, logic, toy) -> None:
    volume = world.volume(image())
    with pytest.raises(SegmentationError, match="There is no model 'liver'"):
        logic.process(volume, "liver")
    with pytest.raises(SegmentationError, match="There is no device 'tpu'; choose one of auto"):
        logic.process(volume, toy, device="tpu")


def test_models_of_the_users_folders_are_found_by_name(world, logic, toy, monkeypatch) -> None:
    monkeypatch.setenv("MSKD_MODELS", str(toy.parent))
    assert "toy" in [entry.name for entry in logic.models()]
    assert logic.process(world.volume(image()), "toy") is not None


def test_one_run_is_one_undo_step(world, logic, toy) -> None:
    volume = world.volume(image())
    segmentation = logic.process(volume, toy)
    slicer.util.updateVolumeFromArray(volume, image(7))
    logic.process(volume, toy, segmentation)
    assert logic.can_undo()
    assert logic.undo()
    assert_result(world, segmentation, volume, image())
    assert not logic.can_undo()
    assert not logic.undo()


def test_undo_of_a_first_run_leaves_no_segments(world, logic, toy) -> None:
    segmentation = logic.process(world.volume(image()), toy)
    assert logic.undo()
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_undo_never_discards_what_was_edited_since(world, logic, toy) -> None:
    volume = world.volume(image())
    segmentation = logic.process(volume, toy)
    first = segmentation.GetSegmentation().GetSegmentIDs()[0]
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.ones((4, 5, 6), np.uint8), segmentation, first, volume)
    assert not logic.can_undo()
    assert not logic.undo()
    assert slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, first, volume).all()


def test_undo_keeps_nothing_in_a_saved_scene(world, logic, toy) -> None:
    logic.process(world.volume(image()), toy)
    world.scene.SetSaveToXMLString(1)
    world.scene.Commit()
    text = world.scene.GetSceneXMLString()
    assert "<Segmentation" in text
    assert "SegmentEditor" not in text


def test_a_scene_with_a_result_survives_saving_and_loading(world, logic, toy, tmp_path) -> None:
    volume = world.volume(image(), OBLIQUE)
    logic.process(volume, toy)
    path = str(tmp_path / "scene.mrb")
    assert world.scene.WriteToMRB(path, None)
    world.scene.Clear(0)
    assert world.scene.ReadFromMRB(path)
    volume = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")[0]
    segmentation = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    assert_result(world, segmentation, volume, image())
    logic.process(volume, toy, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 3


def test_what_is_missing_is_installed_before_the_worker_starts_and_only_then(world, worker: InProcess, toy) -> None:
    from MSKDSegmentation import MSKDSegmentationLogic

    installs = []

    def install(requirements: Path, interactive: bool) -> None:
        assert not worker.heard
        installs.append((requirements.name, interactive))

    logic = MSKDSegmentationLogic(blocking_transport=lambda: worker, install=install)
    assert not installs
    volume = world.volume(image())
    logic.process(volume, toy)
    logic.process(volume, toy)
    assert installs == [("requirements.txt", False)]
    logic.stop()
