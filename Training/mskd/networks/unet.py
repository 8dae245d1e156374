"""The U-Net skeleton (Ronneberger et al. 2015) that the families fill with their own blocks."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from mskd.networks.base import SegmentationNetwork
from mskd.networks.blocks import CONV, TRANSPOSED
from mskd.spec import Strict

Width = Annotated[int, Field(ge=1, le=1024)]
Step = Annotated[int, Field(ge=1, le=4)]
Kernel = Annotated[int, Field(ge=1, le=7)]
MakeStage = Callable[[int, int, tuple[int, ...], tuple[int, ...]], nn.Module]


class UNetArguments(Strict):
    """Arguments every U-Net takes.

    Args:
        dim: 2 or 3 spatial axes.
        channels: Width of each resolution, finest first; their number is the depth.
        strides: Down-sampling step into each resolution, per axis (y, x) or (z, y, x). The first one belongs to the
            stem. Default: 1 for the stem, then 2 along every axis.
        kernels: Convolution kernel at each resolution, per axis, odd. Default: 3 along every axis.
        norm: ``batch`` folds into the convolution at inference; ``instance`` needs no batch statistics.
    """

    dim: Literal[2, 3]
    in_channels: Annotated[int, Field(ge=1, le=16)]
    classes: Annotated[int, Field(ge=2, le=256)]
    channels: Annotated[tuple[Width, ...], Field(min_length=2, max_length=8)]
    strides: tuple[tuple[Step, ...], ...] = ()
    kernels: tuple[tuple[Kernel, ...], ...] = ()
    norm: Literal["batch", "instance"] = "batch"

    @model_validator(mode="after")
    def _consistent(self) -> UNetArguments:
        for name, value in (("strides", self.strides), ("kernels", self.kernels)):
            if value and (len(value) != len(self.channels) or any(len(step) != self.dim for step in value)):
                raise ValueError(f"{name} needs {len(self.channels)} entries (one a resolution) of {self.dim} numbers")
        if any(side % 2 == 0 for kernel in self.kernels for side in kernel):
            raise ValueError("kernels must be odd")
        return self

    def resolved_strides(self) -> tuple[tuple[int, ...], ...]:
        return self.strides or ((1,) * self.dim, *((2,) * self.dim for _ in self.channels[1:]))

    def resolved_kernels(self) -> tuple[tuple[int, ...], ...]:
        return self.kernels or tuple((3,) * self.dim for _ in self.channels)


class UNet(SegmentationNetwork):
    """Encoder, skip connections and decoder; ``make_encoder`` and ``make_decoder`` supply the stages.

    The logits are computed at the stem's resolution and, when the stem strides, interpolated to the input's unless
    ``enlarges`` is unset.
    """

    def __init__(self, arguments: UNetArguments, make_encoder: MakeStage, make_decoder: MakeStage) -> None:
        super().__init__()
        self.dim = arguments.dim
        strides, kernels, widths = arguments.resolved_strides(), arguments.resolved_kernels(), arguments.channels
        self.divisor = tuple(prod(step) for step in zip(*strides, strict=True))
        self.logit_stride = strides[0]
        self._stage_strides = [prod(min(step) for step in strides[: depth + 1]) for depth in range(len(strides))]
        inputs = (arguments.in_channels, *widths[:-1])
        self.encoder = nn.ModuleList(map(make_encoder, inputs, widths, kernels, strides))
        coarse_to_fine = range(len(widths) - 1, 0, -1)
        self.upsample = nn.ModuleList(
            TRANSPOSED[self.dim](widths[depth], widths[depth - 1], strides[depth], strides[depth])
            for depth in coarse_to_fine
        )
        one = (1,) * self.dim
        self.decoder = nn.ModuleList(
            make_decoder(2 * widths[depth - 1], widths[depth - 1], kernels[depth - 1], one) for depth in coarse_to_fine
        )
        self.head = CONV[self.dim](widths[0], arguments.classes, 1)

    def levels(self) -> dict[str, int]:
        stages = len(self.decoder)
        decoder = {f"decoder.{index}": self._stage_strides[stages - 1 - index] for index in reversed(range(stages))}
        return {**decoder, f"encoder.{stages}": self._stage_strides[stages]}

    def _forward(self, image: Tensor) -> Tensor:
        features, skips = image, []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        skips.pop()
        for upsample, stage in zip(self.upsample, self.decoder, strict=True):
            parts = [upsample(features), skips.pop()]
            del features
            features = stage(parts)
        logits = self.head(features)
        if not self.enlarges or max(self.logit_stride) == 1:
            return logits
        mode = "bilinear" if self.dim == 2 else "trilinear"
        return nn.functional.interpolate(logits, size=image.shape[2:], mode=mode, align_corners=False)
