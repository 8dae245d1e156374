"""The whole engine: labels on exactly the input's grid, exact answers, cancel, and the memory ladder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mskd.inference.engine
from mskd.errors import Cancelled, InputError, OutOfMemory, SettingsError
from mskd.events import Event
from mskd.image import Geometry, Image
from mskd.inference import Engine, Region
from mskd.inference.backends import BACKENDS, make_backend
from mskd.inference.backends.torch_eager import TorchEager, fold_batch_norm
from mskd.inference.select import Choice
from mskd.networks import build_network
from mskd.package import save_package
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
THRESHOLDS = (10.5, 20.5, 30.5)


def levels(geometry: Geometry, channels: int = 1) -> tuple[Image, np.ndarray]:
    """An image of random whole numbers 1 to 40, and the labels a threshold network must give it."""
    voxels = np.random.default_rng(0).integers(1, 41, (channels, *geometry.shape)).astype(np.int16)
    return Image(voxels, geometry), np.digitize(voxels[0], THRESHOLDS).astype(np.uint8)


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


@pytest.fixture
def empty_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds nothing yet, so that a limit on its memory can be small."""
    monkeypatch.setattr(mskd.inference.engine, "held_bytes", lambda device: -mskd.inference.engine.RESERVE)


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


class Failing(TorchEager):
    """A network that runs out of memory for anything larger than ``largest`` voxels."""

    fault: Exception = MemoryError()
    largest = 0
    measured = False

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if image[:, 0].numel() > self.largest:
            raise self.fault
        return super().__call__(image)


FAULTS = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    BACKENDS.names()
    monkeypatch.setitem(BACKENDS._entries, "failing", Failing)
    return Failing


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("dim", [2, 3])
def test_memory_ladder_ends_with_the_right_labels(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch, fault: Any, dim: int
) -> None:
    monkeypatch.setattr(failing, "fault", fault)
    monkeypatch.setattr(failing, "largest", 26**3)
    image, truth = levels(Geometry((50, 50, 50)))
    told: list[Event] = []
    engine = Engine(threshold_package(THRESHOLDS, dim, patch=(40,) * dim), "cpu", backend="failing")
    result = engine.run(image, on_event=told.append)
    np.testing.assert_array_equal(result.labels.array, truth)
    steps = result.report["memory_steps"]
    assert len(steps) >= 2
    assert all("Memory ran out on cpu" in step for step in steps)
    assert [event.text for event in told if event.text] == steps


def test_memory_ladder_that_ends_nowhere(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "fault", MemoryError())
    engine = Engine(threshold_package(), "cpu", backend="failing")
    with pytest.raises(OutOfMemory, match="region of interest") as caught:
        engine.run(levels(Geometry((50, 50, 50)))[0])
    assert caught.value.exit_code == 5


def test_a_backend_of_the_gpu_is_not_asked_to_compute_on_the_processor(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(threshold_package(), "cpu", backend="failing", precision="float32")
    monkeypatch.setattr(engine, "device", torch.device("cuda"))
    assert [device.type for device, _ in engine._rungs()] == ["cuda", "cpu"]
    monkeypatch.setattr(failing, "devices", ("cuda",))
    assert [device.type for device, _ in engine._rungs()] == ["cuda"]


def test_an_estimate_above_the_limit_is_never_tried(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "fault", AssertionError("was run"))
    engine = Engine(threshold_package(), "cpu", backend="failing", memory=1000)
    with pytest.raises(OutOfMemory, match="would need"):
        engine.run(levels(Geometry((50, 50, 50)))[0])


def test_other_faults_are_not_taken_for_memory(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "fault", RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Engine(threshold_package(), "cpu", backend="failing").run(levels(Geometry((9, 9, 9)))[0])


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


def test_a_runtime_that_fails_is_left_for_pytorch(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "fault", RuntimeError("the runtime\nis broken"))
    monkeypatch.setattr("mskd.inference.runners.SMALL", 0)
    monkeypatch.setattr(
        "mskd.inference.runners.choose", lambda *words, **more: Choice("failing", "float32", {"failing float32": 1.0})
    )
    image, truth = levels(Geometry((9, 20, 21)))
    engine = Engine(threshold_package(THRESHOLDS), "cpu")
    result = engine.run(image)
    np.testing.assert_array_equal(result.labels.array, truth)
    assert result.report["memory_steps"] == [
        "The backend 'failing' failed (the runtime is broken); going on with 'torch_eager'."
    ]
    assert result.report["backend"] == "torch_eager"
    assert engine.run(image).report["memory_steps"] == []


def test_what_was_fastest_last_is_loaded_while_the_image_is_read(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread, once; another choice afterwards is loaded as ever."""
    last = Choice("failing", "float32", {"failing float32": 1.0})
    made: list[tuple[str, bool]] = []

    def record(name: str, *words: Any, **more: Any) -> Any:
        made.append((name, threading.current_thread() is threading.main_thread()))
        return make_backend(name, *words, **more)

    monkeypatch.setattr(failing, "largest", 1 << 20)
    monkeypatch.setattr("mskd.inference.runners.SMALL", 0)
    monkeypatch.setattr("mskd.inference.runners.last_choice", lambda *words: last)
    monkeypatch.setattr("mskd.inference.runners.choose", lambda *words, **more: last)
    monkeypatch.setattr("mskd.inference.runners.make_backend", record)
    image, truth = levels(Geometry((9, 20, 21)))
    engine = Engine(threshold_package(THRESHOLDS), "cpu")
    engine.warm_up()
    for _ in range(2):
        np.testing.assert_array_equal(engine.run(image).labels.array, truth)
    assert made == [("failing", False)]
    other = Choice("torch_eager", "float32", {})
    monkeypatch.setattr("mskd.inference.runners.choose", lambda *words, **more: other)
    engine.run(levels(Geometry((19, 20, 21)))[0])
    assert made == [("failing", False), ("torch_eager", True)]


def test_a_runtime_that_cannot_be_loaded_ahead_says_so_when_it_is_needed(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Choice("absent", "float32", {})
    monkeypatch.setattr("mskd.inference.runners.SMALL", 0)
    monkeypatch.setattr("mskd.inference.runners.last_choice", lambda *words: last)
    monkeypatch.setattr("mskd.inference.runners.choose", lambda *words, **more: last)
    engine = Engine(threshold_package(THRESHOLDS), "cpu")
    engine.warm_up()
    with pytest.raises(SettingsError, match="absent"):
        engine.run(levels(Geometry((9, 20, 21)))[0])


def test_nothing_is_measured_for_a_small_image(
    threshold_package: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mskd.inference.runners.choose", lambda *words, **more: pytest.fail("was measured"))
    report = Engine(threshold_package(THRESHOLDS), "cpu").run(levels(Geometry((9, 20, 21)))[0]).report
    assert (report["backend"], report["precision"], report["measured_ms"]) == ("torch_eager", "float32", {})


def test_half_precision_and_then_the_processor(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def run(self: Failing, image: torch.Tensor) -> torch.Tensor:
        if not tried or tried[-1] != str(self._type):
            tried.append(str(self._type))
        raise MemoryError

    monkeypatch.setattr(failing, "__call__", run)
    monkeypatch.setattr("mskd.inference.runners.computes_quickly", lambda precision, device: True)
    engine = Engine(threshold_package(), "cpu", backend="failing")
    with pytest.raises(OutOfMemory):
        engine.run(levels(Geometry((50, 50, 50)))[0])
    assert tried == ["torch.float32", "torch.bfloat16"]
    engine = Engine(threshold_package(), "cpu", backend="failing", precision="float32")
    tried.clear()
    with pytest.raises(OutOfMemory):
        engine.run(levels(Geometry((50, 50, 50)))[0])
    assert tried == ["torch.float32"]


LIMITED = """
import sys
from mskd.inference import Engine, tune_process
from mskd.inference.memory import held_bytes, peak_bytes
tune_process()
import numpy as np, torch
from mskd.image import Geometry, Image
from mskd.package import open_package
voxels = np.random.default_rng(0).integers(1, 41, (1, 200, 240, 240)).astype(np.int16)
limit = held_bytes(torch.device("cpu")) + int(sys.argv[2])
engine = Engine(open_package(sys.argv[1]), "cpu", backend="torch_eager", memory=limit)
report = engine.run(Image(voxels, Geometry(voxels.shape[1:]))).report
print(report["plan"]["windows"], peak_bytes(torch.device("cpu")) - limit)
"""


@pytest.mark.parametrize("separable", [False, True])
def test_a_limit_on_memory_is_kept(
    threshold_package: Callable[..., Any], root: Path, tmp_path: Path, separable: bool
) -> None:
    """The peak of a process of its own, measured; without the limit this takes twice as much."""
    arguments = {"dim": 3, "in_channels": 1, "classes": 4, "channels": [16, 16], "separable": separable}
    spec = NetworkSpec(name="light_unet", arguments=arguments)
    manifest = threshold_package(THRESHOLDS).manifest.model_copy(update={"network": spec})
    package = save_package(tmp_path / "model", manifest, build_network(spec).eval())
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(package.path), "1000000000"],
        env={**os.environ, "PYTHONPATH": str(root / "Training")},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    windows, above = map(int, done.stdout.split())
    assert windows > 1
    assert above <= 0
