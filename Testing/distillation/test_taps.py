"""Features by module path."""

from __future__ import annotations

import pytest
import torch
from batches import small_network
from torch import nn

from mskd.distillation import Taps
from mskd.errors import SettingsError


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


def test_reads_what_the_modules_return():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    image = torch.randn(2, 3)
    with Taps(network, ["1", "0"]) as taps:
        network(image)
    first = network[0](image)
    torch.testing.assert_close(taps.features["0"], first)
    torch.testing.assert_close(taps.features["1"], network[1](first))


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", ["light_unet", "residual_unet"])
def test_levels_of_the_networks_have_the_stride_they_name(name, dim):
    network = small_network(name, dim).eval()
    levels = network.levels()
    _, features = Taps(network, list(levels)).collect(network, torch.randn(1, 1, *[8] * dim))
    assert [tuple(tensor.shape[2:]) for tensor in features] == [(8 // stride,) * dim for stride in levels.values()]


def test_a_module_with_two_paths_is_hooked_once_and_read_under_both():
    network = nn.Module()
    network.first = nn.Linear(2, 2)
    network.again = network.first
    taps = Taps(network, ["first", "again"])
    with taps:
        assert hooks(network) == 1
        network.again(torch.ones(1, 2))
        assert taps.features["first"] is taps.features["again"]


def test_entering_twice_hooks_once_and_leaving_removes_all():
    network = nn.Sequential(nn.Linear(2, 2))
    taps = Taps(network, ["0"])
    with taps, taps:
        assert hooks(network) == 1
    assert hooks(network) == 0
    with taps:
        taps.detach()
        assert hooks(network) == 0
    assert hooks(network) == 0


def test_a_failing_forward_pass_leaves_no_hook_behind():
    network = nn.Sequential(nn.Linear(2, 2))
    taps = Taps(network, ["0"])
    with pytest.raises(RuntimeError):
        taps.collect(network, torch.ones(1, 3))
    assert hooks(network) == 0
    assert taps.features == {}


def test_nested_calls_keep_their_own_features():
    network = nn.Sequential(nn.Identity())
    taps = Taps(network, ["0"])
    inner = []

    def outer(image):
        result = network(image)
        inner.append(taps.collect(network, image + 1)[1][0])
        return result

    _, (feature,) = taps.collect(outer, torch.zeros(1))
    assert feature.item() == 0
    assert inner[0].item() == 1


def test_two_networks_of_one_kind_do_not_mix():
    first, second = small_network("light_unet", 2).eval(), small_network("light_unet", 2).eval()
    taps = [Taps(network, ["decoder.1"]) for network in (first, second)]
    image = torch.randn(1, 1, 8, 8)
    _, (left,) = taps[0].collect(first, image)
    _, (right,) = taps[1].collect(second, 2 * image)
    assert not torch.equal(left, right)


def test_an_unknown_path_suggests_the_nearest():
    with pytest.raises(SettingsError, match=r"no module 'decodr\.1'.*did you mean 'decoder\.1'"):
        Taps(small_network("light_unet", 2), ["decodr.1"])


def test_a_module_that_took_no_part_is_named():
    network = nn.Sequential(nn.Identity())
    network.spare = nn.Linear(1, 1)
    network.forward = lambda image: image
    with pytest.raises(SettingsError, match="'spare' took no part"):
        Taps(network, ["spare"]).collect(network, torch.ones(1))


def test_features_that_a_later_module_overwrote_are_refused():
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    with pytest.raises(SettingsError, match="'0' was overwritten in place"):
        Taps(network, ["0"]).collect(network, torch.ones(1, 2))


def test_a_module_that_returns_several_tensors_is_refused():
    network = nn.Sequential(nn.LSTM(2, 2))
    with pytest.raises(SettingsError, match="'0' returns a tuple"):
        Taps(network, ["0"]).collect(network, torch.ones(1, 2))


def test_works_in_inference_mode():
    network = nn.Sequential(nn.Linear(2, 2))
    with torch.inference_mode():
        _, (feature,) = Taps(network, ["0"]).collect(network, torch.ones(1, 2))
    assert feature.shape == (1, 2)
