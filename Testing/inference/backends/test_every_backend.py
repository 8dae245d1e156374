"""Every backend gives PyTorch's logits and labels, for every kind of network and for sizes that change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mskd.errors import SettingsError
from mskd.inference.backends import BACKENDS, make_backend
from mskd.networks import SegmentationNetwork, build_network
from mskd.spec import NetworkSpec

CPU = torch.device("cpu")
STEM = "stem"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("light_unet", {}),
    "separable": ("light_unet", {"separable": True}),
    "stem that strides": ("light_unet", {"strides": STEM}),
    "stem that strides, coarse logits": ("light_unet", {"strides": STEM}),
    "instance norm": ("light_unet", {"norm": "instance"}),
    "residual": ("residual_unet", {}),
    "residual, instance norm": ("residual_unet", {"norm": "instance"}),
}
# Never one twice in a row: then torch_compile would compile each.
SIZES = [(1, 8, 8, 8), (1, 13, 18, 15), (2, 4, 4, 4), (1, 1, 1, 1), (1, 31, 6, 9), (3, 13, 18, 15)]
# Of the largest logit, and of the voxels: (logits, labels).
TOLERANCES = {"float32": (1e-4, 0.999), "bfloat16": (0.05, 0.9), "float16": (0.05, 0.9)}


def make(variant: str, dim: int) -> SegmentationNetwork:
    """A network whose logits are of order 1 and whose BatchNorm has statistics of its own."""
    name, extra = VARIANTS[variant]
    arguments = {"dim": dim, "in_channels": 2, "classes": 4, "channels": [4, 6, 8], **extra}
    if extra.get("strides") == STEM:
        arguments["strides"] = [[2] * dim] * 3
    torch.manual_seed(0)
    network = build_network(NetworkSpec(name=name, arguments=arguments)).train()
    with torch.no_grad():
        for size in ((2, 16, 16, 16), (2, 24, 16, 8)):
            network(torch.randn(size[0], 2, *size[1 : dim + 1]))
        network.head.weight.mul_(10)
    network.enlarges = "coarse" not in variant
    return network.eval()


@pytest.fixture(params=BACKENDS.names())
def name(request: pytest.FixtureRequest) -> str:
    missing = BACKENDS[request.param].available()
    if missing is not None or "cpu" not in BACKENDS[request.param].devices:
        pytest.skip(f"{request.param}: {missing or 'not for the CPU'}")
    return request.param


def assert_alike(logits: torch.Tensor, expected: torch.Tensor, precision: str = "float32") -> None:
    largest, share = TOLERANCES[precision]
    assert logits.shape == expected.shape
    assert logits.dtype == torch.float32
    assert float((logits - expected).abs().max()) <= largest * max(1.0, float(expected.abs().max()))
    assert float((logits.argmax(1) == expected.argmax(1)).float().mean()) >= share


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_logits_of_pytorch(name: str, variant: str, dim: int) -> None:
    network = make(variant, dim)
    backend = make_backend(name, make(variant, dim), CPU)
    kept = []
    for batch, *sides in SIZES:
        image = torch.randn(batch, 2, *sides[:dim])
        before = image.clone()
        with torch.inference_mode():
            expected = network(image)
        logits = backend(image)
        assert_alike(logits, expected)
        assert torch.equal(image, before)
        kept.append((logits, expected))
    for logits, expected in kept:  # later runs have not written to earlier results
        assert_alike(logits, expected)


def test_views_and_transposed_images(name: str) -> None:
    network, backend = make("plain", 2), make_backend(name, make("plain", 2), CPU)
    volume = torch.randn(2, 5, 9, 11)[:, 1:, :, 2:]
    slices = volume.transpose(0, 1)  # what the engine hands a 2D network
    with torch.inference_mode():
        assert_alike(backend(slices), network(slices))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_is_close(name: str, precision: str) -> None:
    if precision not in BACKENDS[name].precisions:
        pytest.skip(f"{name} computes in {', '.join(BACKENDS[name].precisions)}")
    image = torch.randn(1, 2, 13, 18)
    with torch.inference_mode():
        expected = make("plain", 2)(image)
    assert_alike(make_backend(name, make("plain", 2), CPU, precision)(image), expected, precision)


def test_a_size_that_comes_again_is_compiled() -> None:
    missing = BACKENDS["torch_compile"].available()
    if missing is not None:
        pytest.skip(missing)
    network, backend = make("plain", 2), make_backend("torch_compile", make("plain", 2), CPU)
    image = torch.randn(1, 2, 9, 11)
    with torch.inference_mode():
        expected = network(image)
    stats = torch._dynamo.utils.counters["stats"]
    before = stats["unique_graphs"]
    assert_alike(backend(image), expected)
    assert stats["unique_graphs"] == before
    assert_alike(backend(image), expected)
    assert stats["unique_graphs"] == before + 1


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SettingsError, match=r"torch_compile.*no C\+\+ compiler \(no-such-compiler\); install one"):
        make_backend("torch_compile", make("plain", 2), CPU)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("openvino", "openvino", "fast"), ("onnxruntime", "onnx", "export")]
)
def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one.startswith(package) else real(one))
    with pytest.raises(SettingsError, match=rf"'{name}' cannot be used here: .* missing; install mskd\[{extra}\]"):
        make_backend(name, make("plain", 2), CPU)


def test_wrong_device_or_precision_is_said() -> None:
    with pytest.raises(SettingsError, match=r"does not know the precision 'float8' \(it takes float32, bfloat16"):
        make_backend("torch_eager", make("plain", 2), CPU, "float8")
    with pytest.raises(SettingsError, match="did you mean 'torch_eager'"):
        make_backend("torch_eagre", make("plain", 2), CPU)


QUIET = """
import socket, torch
def refuse(*arguments, **keywords):
    raise AssertionError("something wants the network")
socket.socket.connect = socket.getaddrinfo = refuse
from mskd.inference.backends import BACKENDS, make_backend
from mskd.networks import build_network
from mskd.spec import NetworkSpec
arguments = {"dim": 2, "in_channels": 1, "classes": 2, "channels": [2, 4]}
network = build_network(NetworkSpec(name="light_unet", arguments=arguments))
make_backend(NAME, network, torch.device("cpu"))(torch.zeros(1, 1, 5, 5))
"""


@pytest.mark.parametrize("quiet", ["openvino", "onnxruntime"])
def test_nothing_is_reported_and_nothing_left_at_home(root: Path, tmp_path: Path, quiet: str) -> None:
    """``openvino.convert_model`` would leave ``~/intel`` and send what it was used for."""
    pytest.importorskip(quiet)
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "Training"),
        "HOME": str(tmp_path),
        "USERPROFILE": str(tmp_path),
    }
    for variable in ("CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME"):  # where it would keep still
        environment.pop(variable, None)
    code = QUIET.replace("NAME", repr(quiet))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    # PyTorch's own cache of kernels may be there.
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "torch" not in path.parts] == []


def test_memory_is_given_back_after_a_large_image(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    from mskd.inference.backends import openvino

    monkeypatch.setattr(openvino, "LARGE_IMAGE", 1000)
    network, backend = make("plain", 3), make_backend("openvino", make("plain", 3), CPU)
    for side in (12, 5, 12):
        image = torch.randn(1, 2, side, side, side)
        with torch.inference_mode():
            assert_alike(backend(image), network(image))


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        ("cpu", ["CPUExecutionProvider"], ["CPUExecutionProvider"]),
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]),
        ("cpu", ["DmlExecutionProvider", "CPUExecutionProvider"], ["DmlExecutionProvider", "CPUExecutionProvider"]),
        ("mps", ["CoreMLExecutionProvider"], ["CoreMLExecutionProvider", "CPUExecutionProvider"]),
        ("cuda:1", ["CUDAExecutionProvider"], [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]),
    ],
)
def test_providers(device: str, available: list[str], expected: list[Any]) -> None:
    from mskd.inference.backends.onnxruntime import choose_providers

    assert choose_providers(torch.device(device), available) == expected


def test_a_build_without_the_device_is_said() -> None:
    from mskd.inference.backends.onnxruntime import choose_providers

    with pytest.raises(SettingsError, match="no CUDAExecutionProvider; install the one for cuda"):
        choose_providers(torch.device("cuda"), ["CPUExecutionProvider"])
