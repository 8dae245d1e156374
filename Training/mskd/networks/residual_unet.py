"""The teacher: a residual-encoder U-Net, as in nnU-Net's ResEnc presets (Isensee et al. 2024)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from mskd.networks.base import NETWORKS
from mskd.networks.blocks import ConvNormAct, ResidualBlock
from mskd.networks.unet import UNet, UNetArguments


class ResidualUNetArguments(UNetArguments):
    """Adds to the U-Net's arguments:

    Args:
        blocks: Residual blocks in each encoder stage.
    """

    blocks: Annotated[int, Field(ge=1, le=8)] = 1


@NETWORKS.register("residual_unet")
class ResidualUNet(UNet):
    """Residual blocks down, one convolution up."""

    Arguments = ResidualUNetArguments

    def __init__(self, arguments: ResidualUNetArguments) -> None:
        dim, norm, one = arguments.dim, arguments.norm, (1,) * arguments.dim

        def encoder(inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Module:
            return nn.Sequential(
                *(
                    ResidualBlock(
                        dim,
                        outputs if index else inputs,
                        outputs,
                        kernel=kernel,
                        stride=one if index else stride,
                        norm=norm,
                    )
                    for index in range(arguments.blocks)
                )
            )

        def decoder(inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Module:
            return ConvNormAct(dim, inputs, outputs, kernel=kernel, stride=stride, norm=norm)

        super().__init__(arguments, encoder, decoder)
