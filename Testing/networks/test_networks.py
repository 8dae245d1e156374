"""Every registered network keeps the contract: sizes, gradients, tapped levels, saving, both dimensions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mskd.errors import SettingsError
from mskd.inference.backends.torch_eager import fold_batch_norm
from mskd.networks import NETWORKS, build_network, count_parameters
from mskd.networks.blocks import ConvNormAct
from mskd.spec import NetworkSpec

ARGUMENTS = {"in_channels": 2, "classes": 4, "channels": [4, 6, 8]}
VARIANTS = [
    ("plain", {}),
    ("stem_stride", {"strides": "stem"}),
    ("anisotropic", {"strides": "flat", "kernels": "flat"}),
    ("instance", {"norm": "instance"}),
]


def make(name: str, dim: int, **extra: object) -> torch.nn.Module:
    arguments = {"dim": dim, **ARGUMENTS, **extra}
    if extra.get("strides") == "stem":
        arguments["strides"] = [[2] * dim] * 3
    if extra.get("strides") == "flat":
        arguments["strides"] = [[1] * dim, [1] + [2] * (dim - 1), [2] * dim]
        arguments["kernels"] = [[1] + [3] * (dim - 1), [3] * dim, [3] * dim]
    torch.manual_seed(0)
    return build_network(NetworkSpec(name=name, arguments=arguments))


@pytest.fixture(params=NETWORKS.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("extra", [extra for _, extra in VARIANTS], ids=[label for label, _ in VARIANTS])
def test_odd_sizes_come_back_and_every_parameter_learns(name: str, dim: int, extra: dict) -> None:
    network = make(name, dim, **extra)
    image = torch.randn(2, 2, *(13, 18, 15)[:dim])
    logits = network(image)
    assert logits.shape == (2, 4, *image.shape[2:])
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("dim", [2, 3])
def test_levels_name_modules_whose_output_has_that_stride(name: str, dim: int) -> None:
    network = make(name, dim).eval()
    seen: dict[str, torch.Size] = {}
    for path in network.levels():
        network.get_submodule(path).register_forward_hook(lambda _, __, out, path=path: seen.update({path: out.shape}))
    network(torch.zeros(1, 2, *(16,) * dim))
    strides = [network.levels()[path] for path in network.levels()]
    assert strides == sorted(strides)
    assert {path: 16 // shape[2] for path, shape in seen.items()} == network.levels()


@pytest.mark.parametrize("dim", [2, 3])
def test_saved_weights_give_the_same_logits(name: str, dim: int) -> None:
    network, other = make(name, dim).eval(), make(name, dim).eval()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    image = torch.randn(1, 2, *(9,) * dim)
    assert not torch.equal(network(image), other(image))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(image), other(image))


def test_no_module_is_aliased(name: str) -> None:
    network = make(name, 3)
    assert len(network.state_dict()) == len({tensor.data_ptr() for tensor in network.state_dict().values()})


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_several_tensors_are_seen_as_their_concatenation(dim: int, separable: bool, folded: bool) -> None:
    torch.manual_seed(0)
    sizes = {"kernel": (3,) * dim, "stride": (1,) * dim}
    block = ConvNormAct(dim, 8, 5, norm="batch", separable=separable, **sizes).double()
    if folded:
        fold_batch_norm(block.eval())
        block.requires_grad_()
    parts = [torch.randn(2, 4, *(7, 6, 5)[:dim], dtype=torch.float64, requires_grad=True) for _ in range(2)]
    whole = block(torch.cat(parts, dim=1))
    handed = list(parts)
    apart = block(handed)
    assert not handed
    torch.testing.assert_close(apart, whole)
    wanted = [*parts, *block.parameters()]
    weights = torch.randn_like(whole)
    for one, other in zip(
        torch.autograd.grad((apart * weights).sum(), wanted),
        torch.autograd.grad((whole * weights).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_separable_convolutions_are_light() -> None:
    assert count_parameters(make("light_unet", 3, separable=True)) < 0.5 * count_parameters(make("light_unet", 3))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({**ARGUMENTS, "dim": 4}, "dim"),
        ({**ARGUMENTS, "dim": 3, "chanels": [4]}, "did you mean 'channels'"),
        ({**ARGUMENTS, "dim": 3, "channels": [4, 10**9]}, "1024"),
        ({**ARGUMENTS, "dim": 3, "strides": [[2, 2]]}, "strides needs 3 entries"),
        ({**ARGUMENTS, "dim": 2, "kernels": [[2, 2]] * 3}, "odd"),
    ],
)
def test_wrong_arguments_get_a_sentence(name: str, arguments: dict, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence.replace("[", r"\[")):
        build_network(NetworkSpec(name=name, arguments=arguments))


def test_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'light_unet'"):
        build_network(NetworkSpec(name="lite_unet", arguments={}))


NARROW = """
import torch
from mskd.networks import build_network
from mskd.networks.base import channels_last, to_device
from mskd.spec import NetworkSpec
arguments = {"dim": 2, "in_channels": 1, "classes": 3, "channels": [4, 6, 8]}
network = to_device(build_network(NetworkSpec(name="residual_unet", arguments=arguments)), torch.device("cpu"), 2)
for step in range(40):
    image = torch.randn(2, 1, 40 + step % 5, 48).contiguous(memory_format=channels_last(2))
    network(image).square().mean().backward()
"""


def test_narrow_residual_networks_do_not_crash_the_process(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root / "Training")}
    ended = subprocess.run([sys.executable, "-c", NARROW], env=environment, capture_output=True, encoding="utf-8")
    assert ended.returncode == 0, ended.stderr
