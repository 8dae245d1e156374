"""Every backend on a CUDA device: PyTorch's labels, whole results, graphs that are recorded and let go."""

from __future__ import annotations

import pytest
import torch

from mskd.inference.backends import BACKENDS, make_backend
from mskd.inference.select import choose
from mskd.networks import SegmentationNetwork, build_network
from mskd.spec import NetworkSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
# Of the largest logit, and of the voxels. Convolutions in "float32" run in TF32 here.
TOLERANCES = {"float32": (0.01, 0.98), "bfloat16": (0.1, 0.9), "float16": (0.02, 0.97)}


def make(dim: int, norm: str = "batch") -> SegmentationNetwork:
    arguments = {"dim": dim, "in_channels": 1, "classes": 3, "channels": [8, 16, 16], "norm": norm}
    torch.manual_seed(0)
    network = build_network(NetworkSpec(name="light_unet", arguments=arguments)).eval()
    with torch.no_grad():
        network.head.weight.mul_(10)
    return network


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(params=BACKENDS.names())
def name(request: pytest.FixtureRequest) -> str:
    kind = BACKENDS[request.param]
    missing = kind.available()
    if missing is not None or "cuda" not in kind.devices:
        pytest.skip(f"{request.param}: {missing or 'not for CUDA'}")
    if request.param == "onnxruntime":
        onnxruntime = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this build of ONNX Runtime has no CUDA")
    return request.param


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_labels_of_the_processor(name: str, dim: int, norm: str, precision: str, device: torch.device) -> None:
    if precision not in BACKENDS[name].precisions:
        pytest.skip(f"{name} computes in {', '.join(BACKENDS[name].precisions)}")
    network, backend = make(dim, norm), make_backend(name, make(dim, norm), device, precision)
    largest, share = TOLERANCES[precision]
    kept = []
    # The same size several times, as windows come, then another, then the first again.
    for sides in [(33, 40, 25)] * 4 + [(16, 17, 18)] * 3 + [(33, 40, 25)] * 3:
        image = torch.randn(1, 1, *sides[:dim])
        with torch.inference_mode():
            kept.append((backend(image.to(device)), network(image)))
    for logits, expected in kept:  # later runs have not written to earlier results
        found = logits.cpu()
        assert logits.device == device
        assert logits.dtype == torch.float32
        assert float((found - expected).abs().max()) <= largest * max(1.0, float(expected.abs().max()))
        assert float((found.argmax(1) == expected.argmax(1)).float().mean()) >= share


def test_a_graph_is_recorded_once_and_let_go(device: torch.device) -> None:
    backend = make_backend("cuda_graph", make(3), device)
    image = torch.randn(1, 1, 32, 32, 32, device=device)
    backend(image)
    assert backend._recorded is None
    backend(image)
    graph = backend._recorded[0]
    backend(image)
    assert backend._recorded[0] is graph
    backend(image[..., :16])
    assert backend._recorded is None


def test_the_choice_is_one_that_was_measured(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSKD_CACHE", "off")
    choice = choose("f" * 64, lambda: make(3), device, (1, 1, 48, 48, 48))
    assert choice.milliseconds[f"{choice.backend} {choice.precision}"] is not None
    assert choice.milliseconds["torch_eager float32"] is not None
    assert "cuda_graph float16" in choice.milliseconds
