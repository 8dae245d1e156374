"""From a volume node to segments through the real worker process, with a network whose true answer is known."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
from slicer_scene import SlicerScene, affine, rotation

from MSKDSegmentationLib.errors import SegmentationError

THRESHOLDS = (20.5, 60.5)
NAMES = ("above 1", "above 2")
OBLIQUE = affine(rotation((20, -35, 50)) @ np.diag([0.7, 0.9, 2.5]), (-30, 12, 7))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, threshold_network) -> Path:
    """A model package whose labels count the thresholds below a voxel."""
    from mskd.package import save_package

    manifest, network = threshold_network(THRESHOLDS)
    folder = tmp_path_factory.mktemp("models") / "threshold"
    save_package(folder, manifest, network)
    return folder


@pytest.fixture(scope="module")
def warm_logic() -> Iterator[object]:
    """The module's logic as it is, with one real worker for all tests here."""
    import slicer_doubles

    slicer_doubles.install()
    from MSKDSegmentation import MSKDSegmentationLogic

    logic = MSKDSegmentationLogic()
    yield logic
    logic.stop()


def image(shape: tuple[int, int, int] = (10, 12, 14)) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 100, size=shape).astype(np.int16)


def assert_counted(world: SlicerScene, segmentation, volume, array: np.ndarray, inside=True) -> None:
    truth = sum((array > threshold).astype(int) for threshold in THRESHOLDS) * inside
    for value, name in enumerate(NAMES, start=1):
        assert np.array_equal(world.segment_array(segmentation, name, volume), truth == value), name


@pytest.mark.parametrize(
    ("shape", "matrix", "transform"),
    [
        ((10, 12, 14), np.eye(4), None),
        ((10, 12, 14), OBLIQUE, None),
        ((10, 12, 14), affine(np.diag([-1.0, 1.0, 3.0])), affine(rotation((5, 80, -10)), (1, 2, 3))),
        ((1, 12, 14), OBLIQUE, None),
    ],
    ids=["identity", "oblique", "left-handed and turned", "single slice"],
)
def test_the_worker_answers_voxel_by_voxel(world, warm_logic, package, shape, matrix, transform) -> None:
    array = image(shape)
    volume = world.volume(array, matrix)
    if transform is not None:
        volume.SetAndObserveTransformNodeID(world.transform(transform).GetID())
    events: list[dict] = []
    segmentation = warm_logic.process(volume, package, device="cpu", on_event=events.append)
    assert_counted(world, segmentation, volume, array)
    assert {event["phase"] for event in events} >= {"prepare", "windows", "restore"}


def test_a_region_limits_the_segments(world, warm_logic, package) -> None:
    array = image()
    volume = world.volume(array, np.diag([2.0, 2.0, 2.0, 1.0]))
    region = world.region((3, 5, 7), (19, 17, 13))
    segmentation = warm_logic.process(volume, package, device="cpu", region=region)
    z, y, x = 2 * np.indices(array.shape)
    inside = (x > 3) & (x < 19) & (y > 5) & (y < 17) & (z > 7) & (z < 13)
    assert_counted(world, segmentation, volume, array, inside)


def test_the_uncertainty_is_large_near_a_threshold(world, warm_logic, package) -> None:
    array = image()
    unsure = world.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "unsure")
    warm_logic.process(world.volume(array, OBLIQUE), package, device="cpu", uncertainty=unsure)
    percent = slicer.util.arrayFromVolume(unsure)
    distance = np.abs(array[..., None] - np.array(THRESHOLDS)).min(-1)
    assert percent[distance < 1].min() > percent[(distance > 5) & (distance < 10)].max()
    assert percent.max() <= 100


def test_a_volume_that_does_not_suit_gets_the_workers_sentence(world, warm_logic, package) -> None:
    array = image().astype(np.float32)
    array[0, 0, 0] = np.nan
    with pytest.raises(SegmentationError) as caught:
        warm_logic.process(world.volume(array), package, device="cpu")
    assert "NaN" in str(caught.value) or "not a number" in str(caught.value)
    assert warm_logic.process(world.volume(image()), package, device="cpu") is not None


def test_a_damaged_package_gets_the_workers_sentence(world, warm_logic, package, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in package.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = bytearray((broken / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "weights.safetensors").write_bytes(weights)
    with pytest.raises(SegmentationError, match=r"weights\.safetensors"):
        warm_logic.process(world.volume(image()), broken, device="cpu")


def test_the_modules_own_test_passes(world, package, monkeypatch) -> None:
    from MSKDSegmentation import MSKDSegmentationTest

    monkeypatch.setenv("MSKD_MODELS", str(package.parent))
    result = unittest.TestResult()
    MSKDSegmentationTest("runTest").run(result)
    assert result.testsRun == 1
    assert not result.errors + result.failures, result.errors + result.failures
