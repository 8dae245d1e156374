"""PyTorch as it is: inference mode, BatchNorm folded into the convolutions, channels-last."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import fuse_conv_bn_eval

from mskd.inference.backends.base import BACKENDS
from mskd.networks import SegmentationNetwork
from mskd.networks.base import channels_last


@BACKENDS.register("torch_eager")
class TorchEager:
    """Runs everywhere torch runs; below float32 under autocast."""

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda", "mps")
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    measured: ClassVar[bool] = True

    def __init__(self, network: SegmentationNetwork, device: torch.device, precision: str = "float32") -> None:
        network.eval().requires_grad_(False)
        fold_batch_norm(network)
        self._layout = fastest_layout(network, network.dim)
        self._network = network.to(device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self._device, self._type = device.type, getattr(torch, precision)

    @classmethod
    def available(cls) -> str | None:
        return None

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        image = image.contiguous(memory_format=self._layout)
        if self._type is torch.float32:
            return self._network(image).float()
        # The cache would keep copies of weights, which a captured CUDA graph must not.
        with torch.autocast(self._device, dtype=self._type, cache_enabled=False):
            return self._network(image).float()


def fastest_layout(network: nn.Module, dim: int) -> torch.memory_format:
    """The memory layout in which a network of 2D or 3D convolutions runs fastest, its norms considered."""
    # InstanceNorm is three times slower in channels-last.
    wants_planes = any(isinstance(module, nn.modules.instancenorm._InstanceNorm) for module in network.modules())
    return torch.contiguous_format if wants_planes else channels_last(dim)


def fold_batch_norm(module: nn.Module) -> None:
    """Merge, in place, every BatchNorm that follows a convolution in a Sequential into that convolution."""
    for child in module.children():
        fold_batch_norm(child)
    if not isinstance(module, nn.Sequential):
        return
    for index in range(len(module) - 1):
        convolution, norm = module[index], module[index + 1]
        if not isinstance(convolution, _ConvNd) or convolution.transposed or not isinstance(norm, _BatchNorm):
            continue
        if norm.running_mean is not None:  # without statistics of its own it takes those of the batch
            module[index] = fuse_conv_bn_eval(convolution, norm)
            module[index + 1] = nn.Identity()
