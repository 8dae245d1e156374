"""Convolution blocks for 2D and 3D, chosen by ``dim``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mskd.networks.depthwise import CONVOLVE, DepthwiseConv3d, depthwise_conv

MakeModule = Callable[..., nn.Module]

CONV: dict[int, MakeModule] = {2: nn.Conv2d, 3: nn.Conv3d}
DEPTHWISE: dict[int, MakeModule] = {2: nn.Conv2d, 3: DepthwiseConv3d}
TRANSPOSED: dict[int, MakeModule] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM: dict[tuple[str, int], MakeModule] = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
}


def norm_layer(norm: str, dim: int, channels: int) -> nn.Module:
    """A normalisation layer with learnt scale and shift."""
    return NORM[norm, dim](channels, affine=True)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, normalisation, leaky ReLU; ``separable`` splits it into depthwise and pointwise."""

    def __init__(
        self,
        dim: int,
        inputs: int,
        outputs: int,
        *,
        kernel: Sequence[int],
        stride: Sequence[int],
        norm: str,
        separable: bool = False,
        activate: bool = True,
    ) -> None:
        padding = tuple(side // 2 for side in kernel)
        kernel, stride = tuple(kernel), tuple(stride)
        self.separable = separable and inputs > 1
        if self.separable:
            convolutions = [
                DEPTHWISE[dim](inputs, inputs, kernel, stride, padding, groups=inputs, bias=False),
                CONV[dim](inputs, outputs, 1, bias=False),
            ]
        else:
            convolutions = [CONV[dim](inputs, outputs, kernel, stride, padding, bias=False)]
        activation = [nn.LeakyReLU(0.01, inplace=True)] if activate else []
        super().__init__(*convolutions, norm_layer(norm, dim, outputs), *activation)

    def forward(self, input: Tensor | list[Tensor]) -> Tensor:
        """Of one tensor, or of the channels of several equally wide ones together; their list is emptied.

        With that, nothing holds the memory of what has been seen.
        """
        if isinstance(input, list):
            features, after = (self._apart(input), 2) if self.separable else (_joined(input), 0)
        else:
            features, after = input, 0
        del input
        for module in list(self)[after:]:
            features = module(features)
        return features

    def _apart(self, parts: list[Tensor]) -> Tensor:
        """Both convolutions, part by part: their sum is what the concatenation gives, in two thirds of the memory."""
        depthwise: Any = self[0]
        pointwise: Any = self[1]
        width = depthwise.in_channels // len(parts)
        total: Tensor | None = None
        for first in range(0, depthwise.in_channels, width):
            channels = slice(first, first + width)
            features = depthwise_conv(parts.pop(0), depthwise.weight[channels], depthwise.stride, depthwise.padding)
            bias = pointwise.bias if total is None else None
            features = CONVOLVE[features.dim() - 2](features, pointwise.weight[:, channels], bias)
            total = features if total is None else total.add_(features)
        assert total is not None
        return total


def _joined(parts: list[Tensor]) -> Tensor:
    """The concatenation of the channels; ``parts`` is emptied."""
    first = parts[0]
    if first.is_meta:  # for a shape PyTorch would import its compiler, which takes 0.7 s and 90 MB
        whole = first.new_empty(len(first), sum(part.shape[1] for part in parts), *first.shape[2:])
    else:
        whole = torch.cat(parts, dim=1)
    parts.clear()
    return whole


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, as in nnU-Net's residual encoder)."""

    def __init__(
        self, dim: int, inputs: int, outputs: int, *, kernel: Sequence[int], stride: Sequence[int], norm: str
    ) -> None:
        super().__init__()
        one = (1,) * dim
        self.first = ConvNormAct(dim, inputs, outputs, kernel=kernel, stride=stride, norm=norm)
        self.second = ConvNormAct(dim, outputs, outputs, kernel=kernel, stride=one, norm=norm, activate=False)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or tuple(stride) != one:
            self.shortcut = ConvNormAct(dim, inputs, outputs, kernel=one, stride=one, norm=norm, activate=False)
        # A 1x1 convolution that strides, done as what it is: PyTorch 2.13 writes beyond its memory in the backward pass
        # of one with fewer than 8 channels in channels-last.
        self._kept = (slice(None), slice(None), *(slice(None, None, step) for step in stride))
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.second(self.first(features)) + self.shortcut(features[self._kept]))
