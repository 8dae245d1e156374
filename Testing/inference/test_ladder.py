"""The memory ladder: what is tried after what, and that a limit is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_doubles import THRESHOLDS, Failing, levels

from mskd.errors import OutOfMemory
from mskd.events import Event
from mskd.image import Geometry
from mskd.inference import Engine
from mskd.networks import build_network
from mskd.package import save_package
from mskd.spec import NetworkSpec

FAULTS = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
]


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


def test_a_small_limit_on_a_gpu_is_for_windows(
    threshold_package: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process loads lies in the memory of the processor, and takes nothing of a limit on the GPU's."""
    monkeypatch.setattr("mskd.inference.engine.free_bytes", lambda device: 8 << 30)
    monkeypatch.setattr("mskd.inference.engine.held_bytes", lambda device: 10_000_000)
    engine = Engine(threshold_package(), "cpu", memory=200_000_000)
    assert 100_000_000 < engine._budget(torch.device("cuda")) < 190_000_000
    assert engine._budget(torch.device("cpu")) == 0


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
