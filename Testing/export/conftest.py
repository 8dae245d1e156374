"""Packages of every kind of network, to be exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mskd.networks import build_network
from mskd.package import save_package
from mskd.spec import NetworkSpec

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "separable": ("light_unet", {"separable": True}),
    "stem that strides": ("light_unet", {"strides": "stem"}),
    "residual, instance norm": ("residual_unet", {"norm": "instance"}),
}


@pytest.fixture
def random_package(threshold_network: Callable[..., Any], tmp_path: Any) -> Callable[[str, int], Any]:
    """Makes a package of a network with random weights and two channels: (variant, dim)."""

    def make(variant: str, dim: int) -> Any:
        manifest, _ = threshold_network((0.5, 1.5), dim, 2, largest_component=("above 2",))
        name, extra = VARIANTS[variant]
        arguments = {"dim": dim, "in_channels": 2, "classes": 3, "channels": [4, 6, 8], **extra}
        if extra.get("strides"):
            arguments["strides"] = [[2] * dim] * 3
        spec = NetworkSpec(name=name, arguments=arguments)
        torch.manual_seed(0)
        network = build_network(spec)
        return save_package(tmp_path / "random", manifest.model_copy(update={"network": spec}), network.eval())

    return make
