"""A teacher made ready to be read at every step: the same answers, sooner."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from mskd.inference.backends.torch_eager import fastest_layout, fold_batch_norm


def frozen(teacher: nn.Module, tapped: Sequence[str], dim: int) -> tuple[nn.Module, torch.memory_format]:
    """A copy in eval mode, without gradients, in its fastest layout and with BatchNorm folded into convolutions.

    What a folded convolution returns is what its norm returned; where a tapped module is among those that folding
    replaces, the copy keeps its norms.

    Args:
        tapped: Paths of the modules to take features from.
        dim: Spatial axes, 2 or 3.

    Returns:
        The copy, and the layout in which it wants its images.
    """
    network = copy.deepcopy(teacher)
    before = _modules(network)
    fold_batch_norm(network.eval())
    after = _modules(network)
    if any(after.get(path) is not before.get(path) for path in tapped):
        network = copy.deepcopy(teacher).eval()
    layout = fastest_layout(network, dim)
    return network.requires_grad_(False).to(memory_format=layout), layout  # type: ignore[call-overload]


def _modules(network: nn.Module) -> dict[str, nn.Module]:
    return dict(network.named_modules(remove_duplicate=False))
