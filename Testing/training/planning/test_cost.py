"""Costs counted on shapes are those of the network that computes."""

from __future__ import annotations

import pytest
import torch

from mskd.networks import NETWORKS, build_network, count_parameters
from mskd.spec import NetworkSpec
from mskd.training.planning.cost import network_cost


def test_multiply_adds_are_those_counted_by_hand() -> None:
    arguments = {
        **{"dim": 3, "in_channels": 1, "classes": 3, "channels": [2, 4], "encoder_convs": 1, "decoder_convs": 1},
        "kernels": [[1, 3, 3], [3, 3, 3]],
    }
    cost = network_cost(NetworkSpec(name="light_unet", arguments=arguments), (8, 8, 8))
    encoder = 512 * 9 * 1 * 2 + 64 * 27 * 2 * 4
    decoder = 512 * 4 * 2 + 512 * 9 * 4 * 2  # each voxel of a transposed convolution of stride 2 comes from one other
    assert cost.macs == encoder + decoder + 512 * 2 * 3


def test_separable_convolutions_of_the_decoder_are_counted() -> None:
    arguments = {
        **{"dim": 3, "in_channels": 1, "classes": 3, "channels": [2, 4], "encoder_convs": 1, "decoder_convs": 1},
        "separable": True,
    }
    cost = network_cost(NetworkSpec(name="light_unet", arguments=arguments), (8, 8, 8))
    encoder = 512 * 27 * 1 * 2 + 64 * (27 * 2 + 2 * 4)  # of a single channel nothing is separated
    decoder = 512 * 4 * 2 + 512 * (27 * 4 + 4 * 2)
    assert cost.macs == encoder + decoder + 512 * 2 * 3
    # Convolution and norm of the first level; both convolutions and norm of the second; the transposed convolution;
    # both convolutions and norm of the decoder; the logits. Activations work in place.
    assert cost.activations == 4 * (512 * (2 + 2) + 64 * (2 + 4 + 4) + 512 * 2 + 512 * (4 + 2 + 2) + 512 * 3)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", NETWORKS.names())
def test_activations_and_weights_are_those_of_the_network(name: str, dim: int) -> None:
    spec = NetworkSpec(name=name, arguments={"dim": dim, "in_channels": 2, "classes": 4, "channels": [4, 6, 8]})
    network, patch = build_network(spec), (12, 16, 20)[:dim]
    stored = 0

    def store(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal stored
        stored += 0 if getattr(module, "inplace", False) else output.numel() * output.element_size()

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(store)
    network(torch.zeros(1, 2, *patch))
    cost = network_cost(spec, patch)
    assert cost.activations == stored
    assert cost.parameters == count_parameters(network)
    assert cost.memory(3) > cost.memory(2) > 2 * stored


def test_a_patch_between_multiples_costs_what_it_is_padded_to() -> None:
    spec = NetworkSpec(name="light_unet", arguments={"dim": 2, "in_channels": 1, "classes": 2, "channels": [2, 4, 8]})
    assert network_cost(spec, (13, 16)) == network_cost(spec, (16, 16))
