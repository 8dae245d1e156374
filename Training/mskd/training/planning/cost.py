"""What a network costs, counted on shapes alone: no weight is made and nothing is computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from mskd.networks import build_network, count_parameters
from mskd.networks.blocks import ConvNormAct
from mskd.spec import NetworkSpec

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Of one patch through a network.

    Args:
        macs: Multiply-adds of the convolutions in the forward pass.
        activations: Bytes that a training step keeps for the backward pass, in float32.
        parameters: Trainable weights.
    """

    macs: float
    activations: float
    parameters: int

    def memory(self, batch: int) -> float:
        """Bytes of a training step: activations and their gradients; weights, gradients, two moments, an average."""
        return 2 * self.activations * batch + 5 * BYTES * self.parameters


def network_cost(spec: NetworkSpec, patch: Sequence[int]) -> Cost:
    """The cost of a patch whose sides are multiples of the network's divisor (others are padded up to that)."""
    unit, divisor = _unit_cost(spec.name, json.dumps(spec.arguments, sort_keys=True))
    voxels = prod(-(-side // step) * step for side, step in zip(patch, divisor, strict=True))
    return Cost(unit.macs * voxels, unit.activations * voxels, unit.parameters)


@lru_cache(maxsize=512)
def _unit_cost(name: str, arguments: str) -> tuple[Cost, tuple[int, ...]]:
    """Cost per voxel (it is the same at every size), and the network's divisor."""
    spec = NetworkSpec(name=name, arguments=json.loads(arguments))
    with torch.device("meta"):
        network = build_network(spec)
        # Twice the divisor: some norms refuse a single voxel.
        image = torch.empty(1, spec.arguments["in_channels"], *(2 * side for side in network.divisor))
    macs = activations = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal macs, activations
        if isinstance(module, CONVOLUTIONS):
            macs += output.numel() * module.in_channels // module.groups * prod(module.kernel_size)
        elif isinstance(module, TRANSPOSED):
            macs += inputs[0].numel() * module.out_channels * prod(module.kernel_size)
        if not getattr(module, "inplace", False):
            activations += output.numel() * BYTES

    def count_apart(module: ConvNormAct, inputs: tuple[object, ...], output: Tensor) -> None:
        """The convolutions of a separable one that is handed several tensors: no hook of theirs is called then."""
        nonlocal macs, activations
        if module.separable and isinstance(inputs[0], list):
            depthwise: Any = module[0]
            voxels, width = output[:, 0].numel(), depthwise.in_channels
            macs += voxels * width * (prod(depthwise.kernel_size) + output.shape[1])
            activations += voxels * (width + output.shape[1]) * BYTES

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    hooks += [
        module.register_forward_hook(count_apart) for module in network.modules() if isinstance(module, ConvNormAct)
    ]
    with torch.no_grad():
        network.eval()(image)
    for hook in hooks:
        hook.remove()
    voxels = image[0, 0].numel()
    return Cost(macs / voxels, activations / voxels, count_parameters(network)), network.divisor
