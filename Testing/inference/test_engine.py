"""The whole engine: labels on exactly the input's grid, exact answers, cancel, and the memory ladder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from engine_doubles import THRESHOLDS, levels

from mskd.errors import Cancelled, InputError, SettingsError
from mskd.events import Event
from mskd.image import Geometry, Image
from mskd.inference import Engine, Region
from mskd.inference.backends.torch_eager import fold_batch_norm
from mskd.networks import build_network
from mskd.spec import NetworkSpec

COS, SIN = np.cos(0.5), np.sin(0.5)
GEOMETRIES = {
    "identity": Geometry((9, 20, 21)),
    "oblique": Geometry((9, 20, 21), (3.0, 0.8, 0.9), (5, -6, 7), (COS, SIN, 0, -SIN, COS, 0, 0, 0, 1)),
    "doubly oblique": Geometry(
        (9, 20, 21), (1.0, 2.0, 1.5), (5, -6, 7), (COS, 0, SIN, SIN * SIN, COS, -SIN * COS, -SIN * COS, SIN, COS * COS)
    ),
    "flipped": Geometry((9, 20, 21), (1.0, 1.0, 1.0), (5, -6, 7), (-1, 0, 0, 0, -1, 0, 0, 0, -1)),
    "left-handed": Geometry((9, 20, 21), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1)),
    "anisotropic": Geometry((5, 30, 31), (6.0, 0.5, 0.5)),
    "permuted": Geometry((9, 20, 21), (1.0, 2.0, 3.0), (5, -6, 7), (0, 0, 1, 1, 0, 0, 0, -1, 0)),
    "single slice": Geometry((1, 33, 35), (5.0, 1.0, 1.0)),
    "single column": Geometry((17, 1, 1)),
    "one voxel": Geometry((1, 1, 1)),
}


@pytest.fixture(scope="module")
def engines(threshold_package: Callable[..., Any]) -> dict[Any, Engine]:
    """By dimension and orientation."""
    return {
        (dim, orientation): Engine(threshold_package(THRESHOLDS, dim, orientation=orientation), "cpu")
        for dim in (2, 3)
        for orientation in ("LPS", "RAS", "SAR")
    }


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAR"])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_exact_labels_on_exactly_the_grid(engines: dict, name: str, dim: int, orientation: str) -> None:
    image, truth = levels(GEOMETRIES[name])
    result = engines[dim, orientation].run(image)
    assert result.labels.geometry == image.geometry
    assert result.labels.array.dtype == np.uint8
    np.testing.assert_array_equal(result.labels.array, truth)


@pytest.mark.usefixtures("empty_process")
@pytest.mark.parametrize("dim", [2, 3])
def test_windows_give_the_same_labels(threshold_package: Callable[..., Any], dim: int) -> None:
    image, truth = levels(Geometry((40, 50, 60)))
    engine = Engine(threshold_package(THRESHOLDS, dim, patch=(24,) * dim), "cpu", memory=3_000_000 * (dim - 1))
    result = engine.run(image)
    assert result.report["plan"]["windows"] > 1
    assert result.report["memory_steps"]
    np.testing.assert_array_equal(result.labels.array, truth)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("side", [32, 37])
def test_a_stem_that_strides_gives_the_labels_of_its_enlarged_logits(
    threshold_package: Callable[..., Any], dim: int, side: int
) -> None:
    arguments = {"dim": dim, "in_channels": 1, "classes": 4, "channels": [2, 4], "strides": [[2] * dim] * 2}
    package = threshold_package(THRESHOLDS, dim, network=NetworkSpec(name="light_unet", arguments=arguments))
    image = levels(Geometry((side, 40, 33)))[0]
    voxels = torch.from_numpy(image.array).float()
    batch = voxels.transpose(0, 1) if dim == 2 else voxels[None]
    with torch.inference_mode():
        logits = package.load_network()(batch)
    expected = logits.argmax(1).reshape(image.geometry.shape)
    found = Engine(package, "cpu").run(image).labels.array
    inside = np.s_[:-2, :-2, :-2]  # beyond the image the network sees zeros and the engine the last voxel
    assert (found == expected.numpy())[inside].mean() > 0.999
    assert len(np.unique(found)) == 4


@pytest.mark.usefixtures("empty_process")
@pytest.mark.parametrize("dim", [2, 3])
def test_windows_of_a_stem_that_strides(threshold_package: Callable[..., Any], dim: int) -> None:
    """The weights look at single voxels, so that windows and the whole agree but where the image ends."""
    arguments = {"dim": dim, "in_channels": 1, "classes": 4, "channels": [2, 4], "strides": [[2] * dim, [2] * dim]}
    network = NetworkSpec(name="light_unet", arguments=arguments)
    package = threshold_package(THRESHOLDS, dim, network=network, patch=(24,) * dim, spacing=(1.0, 1.3, 1.0))
    image = levels(Geometry((41, 61, 63)))[0]
    whole = Engine(package, "cpu").run(image)
    parts = Engine(package, "cpu", memory=1_000_000 * (dim - 1)).run(image)
    assert parts.report["plan"]["windows"] > whole.report["plan"]["windows"]
    assert len(np.unique(whole.labels.array)) == 4
    np.testing.assert_array_equal(parts.labels.array[:-2, :-2, :-2], whole.labels.array[:-2, :-2, :-2])


def test_resampled_model_finds_the_object_where_it_is(threshold_package: Callable[..., Any]) -> None:
    geometry = Geometry((20, 40, 44), (3.0, 1.0, 1.1), (9, 8, 7), (COS, SIN, 0, -SIN, COS, 0, 0, 0, 1))
    voxels = np.zeros((1, *geometry.shape), dtype=np.float32)
    voxels[0, 5:14, 10:30, 12:32] = 1.0
    engine = Engine(threshold_package((0.5,), spacing=(1.5, 2.0, 2.0), orientation="RAS"), "cpu")
    labels = engine.run(Image(voxels, geometry)).labels.array
    both, either = np.sum((labels == 1) & (voxels[0] == 1)), np.sum(labels == 1) + np.sum(voxels == 1)
    assert 2 * both / either > 0.97


def test_many_channels(threshold_package: Callable[..., Any]) -> None:
    image, truth = levels(Geometry((6, 7, 8)), channels=3)
    result = Engine(threshold_package(THRESHOLDS, channels=3), "cpu").run(image)
    np.testing.assert_array_equal(result.labels.array, truth)


def test_wrong_number_of_channels(engines: dict) -> None:
    with pytest.raises(InputError, match=r"2 channels.*takes 1 \(channel 0\)"):
        engines[3, "LPS"].run(levels(GEOMETRIES["identity"], channels=2)[0])


@pytest.mark.parametrize("name", ["identity", "oblique", "permuted"])
def test_outside_the_region_is_background(engines: dict, name: str) -> None:
    geometry = GEOMETRIES[name]
    image, truth = levels(geometry)
    x, y, z = geometry.point(tuple((side - 1) / 2 for side in geometry.shape))
    region = Region((-x - 4.6, -y - 4.6, z - 2.6), (-x + 4.6, -y + 4.6, z + 2.6))
    labels = engines[3, "RAS"].run(image, region).labels.array
    inside = region.mask(geometry)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_array_equal(labels, np.where(inside, truth, 0))


def test_largest_component(threshold_package: Callable[..., Any]) -> None:
    voxels = np.zeros((1, 10, 10, 10), dtype=np.float32)
    voxels[0, 1:4, 1:4, 1:4] = voxels[0, 7, 7, 7] = 1.0
    package = threshold_package((0.5,), largest_component=("above 1",))
    labels = Engine(package, "cpu").run(Image(voxels, Geometry((10, 10, 10)))).labels.array
    assert labels.sum() == 27
    assert labels[7, 7, 7] == 0


def test_report_is_json_and_complete(engines: dict) -> None:
    image, truth = levels(Geometry((9, 20, 21), (3.0, 2.0, 1.0)))
    report = engines[3, "LPS"].run(image).report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report["versions"]) >= {"mskd", "torch", "python"}
    assert report["device"] == "cpu"
    assert set(report["milliseconds"]) == {"prepare", "load", "windows", "restore", "total"}
    assert report["plan"]["whole"]
    for value, name in enumerate(("above 1", "above 2", "above 3"), start=1):
        assert report["volumes_ml"][name] == pytest.approx((truth == value).sum() * 6 / 1000)


def test_events_tell_the_phases_in_order(engines: dict) -> None:
    told: list[Event] = []
    engines[3, "LPS"].run(levels(GEOMETRIES["identity"])[0], on_event=told.append)
    assert list(dict.fromkeys(event.phase for event in told)) == ["prepare", "windows", "restore"]
    assert [event for event in told if event.phase == "windows"][-1] == Event("windows", 1, 1)


def test_cancel(engines: dict) -> None:
    with pytest.raises(Cancelled):
        engines[3, "LPS"].run(levels(GEOMETRIES["identity"])[0], cancelled=lambda: True)


def test_unknown_device_and_backend(threshold_package: Callable[..., Any]) -> None:
    package = threshold_package()
    for arguments in ({"device": "tpu"}, {"device": "cuda:99"}, {"backend": "abacus"}):
        with pytest.raises(SettingsError):
            Engine(package, **arguments)


def test_instance_norm_networks_see_windows(threshold_package: Callable[..., Any]) -> None:
    network = threshold_package().manifest.network
    arguments = {**network.arguments, "norm": "instance"}
    package = threshold_package(network=NetworkSpec(name="light_unet", arguments=arguments), patch=(24, 24, 24))
    report = Engine(package, "cpu").run(levels(Geometry((40, 40, 40)))[0]).report
    assert report["plan"]["window"] == [24, 24, 24]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("separable", [False, True])
def test_folding_changes_nothing(dim: int, separable: bool) -> None:
    arguments = {"dim": dim, "in_channels": 2, "classes": 3, "channels": [4, 8, 8], "separable": separable}
    torch.manual_seed(0)
    network = build_network(NetworkSpec(name="light_unet", arguments=arguments))
    image = torch.randn(2, 2, *(16,) * dim)
    for _ in range(3):
        network(image)  # gives the statistics a value
    network.eval()
    with torch.inference_mode():
        before = network(image)
        fold_batch_norm(network)
        after = network(image)
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in network.modules())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
