"""A network as one graph of tensor operations that takes images of any size, for runtimes other than PyTorch."""

from __future__ import annotations

import io
import warnings
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mskd.inference.backends.torch_eager import fold_batch_norm
from mskd.networks import SegmentationNetwork

OPSET = 17
AXES = {2: ("y", "x"), 3: ("z", "y", "x")}


class AnySize(nn.Module):
    """What ``network.forward`` does, without a decision of Python's: a trace holds for every size.

    Args:
        network: Not in training mode.
        reverse: Take and give ``[N, C, x, y, z]`` instead of ``[N, C, z, y, x]``.
    """

    def __init__(self, network: SegmentationNetwork, *, reverse: bool = False) -> None:
        super().__init__()
        self.network = network
        self._order = [0, 1, *range(network.dim + 1, 1, -1)] if reverse else None
        self._normalises_instances = network._normalises_instances()

    def forward(self, image: Tensor) -> Tensor:
        if self._order:
            image = image.permute(self._order)
        size = image.shape[2:]
        missing = [-side % step for side, step in zip(size, self.network.divisor, strict=True)]
        if self._normalises_instances:  # a single voxel at the deepest level has no deviation to divide by
            missing[-1] = missing[-1] + self.network.divisor[-1] * self._single(size)
        pad = [amount for axis in reversed(missing) for amount in (0, axis)]
        box: Any = (..., *(slice(0, side) for side in self.network.logits_size(size)))
        logits: Tensor = self.network._forward(F.pad(image, pad))[box]
        return logits.permute(self._order) if self._order else logits

    def _single(self, size: torch.Size) -> int:
        single = 1
        for side, step in zip(size, self.network.divisor, strict=True):
            single = single * (side <= step)
        return single


def trace(network: SegmentationNetwork, *, reverse: bool = False) -> torch.jit.ScriptModule:
    """The graph of a network, which is folded in place; see :class:`AnySize`.

    ``torch.jit.trace`` and not ``torch.export``: the latter cannot prove that padding to a multiple makes the skip
    connections meet, and fixes the size.
    """
    network.cpu().eval().requires_grad_(False)
    fold_batch_norm(network)
    graph = AnySize(network, reverse=reverse).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecation, and "might not generalise", which the tests refute
        return torch.jit.trace(graph, example(network), check_trace=False)


def example(network: SegmentationNetwork) -> Tensor:
    """A small image whose sides are no multiples of anything, so that padding is part of what is traced."""
    return torch.zeros(1, input_channels(network), *(2 * side + 1 for side in network.divisor))


def input_channels(network: SegmentationNetwork) -> int:
    """Channels of the image, as the first convolution takes them."""
    return next(module.in_channels for module in network.modules() if isinstance(module, _ConvNd))


class Logits:
    """Where a network's logits go: it knows their shape without the network."""

    def __init__(self, network: SegmentationNetwork) -> None:
        with torch.inference_mode():
            self._classes = network(example(network)).shape[1]
        self._steps = (1,) * network.dim if network.enlarges else network.logit_stride

    def empty(self, image: Tensor) -> Tensor:
        """Float32 of the shape of the logits of ``image``, on its device."""
        sides = (-(-side // step) for side, step in zip(image.shape[2:], self._steps, strict=True))
        return torch.empty(image.shape[0], self._classes, *sides, device=image.device)


def to_onnx(network: SegmentationNetwork) -> bytes:
    """The network as an ONNX model ``image -> logits`` whose batch and spatial sizes are free. Needs ``onnx``.

    By the exporter that takes a trace; the other one, ``dynamo``, is built on ``torch.export`` (see :func:`trace`).
    """
    graph = trace(network)
    axes = {0: "n", **{axis + 2: name for axis, name in enumerate(AXES[network.dim])}}
    written = io.BytesIO()
    choice: dict[str, Any] = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (example(network),),
            written,  # type: ignore[arg-type]
            **choice,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": axes, "logits": axes},
        )
    return written.getvalue()
