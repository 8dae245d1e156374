"""Depthwise 3D convolution whose backward pass is fast on a processor, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CONVOLVE: dict[int, Callable[..., Tensor]] = {2: F.conv2d, 3: F.conv3d}


class DepthwiseConv3d(nn.Conv3d):
    """``nn.Conv3d`` with one group a channel: the same weights, keys and numbers, by :func:`depthwise_conv`."""

    def forward(self, input: Tensor) -> Tensor:
        if self.bias is not None:  # a norm folded into it: it learns no more
            return super().forward(input)
        return depthwise_conv(input, self.weight, self.stride, self.padding)


def depthwise_conv(image: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int] | str) -> Tensor:
    """A 2D or 3D convolution with one group a channel, without bias.

    PyTorch's backward pass of it in 3D takes many times as long as its forward pass on a processor. Here, with stride
    1, the gradient of the input is one more forward convolution, with the kernel mirrored, and that of the weights a
    few 2D depthwise convolutions over the slices, for which PyTorch has fast code. Elsewhere this is PyTorch's own.

    Args:
        image: ``[N, C, *spatial]``.
        weight: ``[C, 1, *kernel]``, odd; with stride 1 the padding keeps the size.
    """
    dim = weight.dim() - 2
    trains = torch.is_grad_enabled() and weight.requires_grad and image.device.type == "cpu"
    if dim == 2 or not trains or max(stride) > 1:
        return CONVOLVE[dim](image, weight, None, stride, padding, groups=len(weight))
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        image, weight = image.to(kind), weight.to(kind)
    result: Tensor = _Depthwise.apply(image, weight)  # type: ignore[no-untyped-call]
    return result


class _Depthwise(torch.autograd.Function):
    """Stride 1, odd kernel, zero padding that keeps the size."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(image, weight)
        return _convolve(image, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        image, weight = ctx.saved_tensors
        to_image = _convolve(gradient, weight.flip(2, 3, 4)) if ctx.needs_input_grad[0] else None
        return to_image, _weight_gradient(image, weight, gradient) if ctx.needs_input_grad[1] else None


def _convolve(image: Tensor, weight: Tensor) -> Tensor:
    return F.conv3d(image, weight, padding=[side // 2 for side in weight.shape[2:]], groups=len(weight))


def _weight_gradient(image: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """Each slice of the kernel sees every slice of the image, shifted: a 2D convolution with the slices as a batch."""
    channels, depth = image.shape[1], image.shape[2]
    kernel = weight.shape[2:]
    slices, above = (tensor.transpose(1, 2) for tensor in (image, gradient))
    found = torch.zeros_like(weight)
    for plane in range(kernel[0]):
        shift = plane - kernel[0] // 2
        low, high = max(0, -shift), min(depth, depth - shift)
        if low < high:
            found[:, :, plane] = torch.ops.aten.convolution_backward(
                above[:, low:high].reshape(-1, channels, *image.shape[3:]),
                slices[:, low + shift : high + shift].reshape(-1, channels, *image.shape[3:]),
                weight[:, :, plane],
                [0],
                [1, 1],
                [kernel[1] // 2, kernel[2] // 2],
                [1, 1],
                False,
                [0, 0],
                channels,
                [False, True, False],
            )[1]
    return found
