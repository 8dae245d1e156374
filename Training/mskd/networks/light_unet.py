"""The light student: a narrow U-Net of plain or depthwise-separable convolutions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from mskd.networks.base import NETWORKS
from mskd.networks.blocks import ConvNormAct
from mskd.networks.unet import UNet, UNetArguments


class LightUNetArguments(UNetArguments):
    """Adds to the U-Net's arguments:

    Args:
        separable: Depthwise then pointwise convolutions: 3 to 5 times fewer weights.
        encoder_convs: Convolutions in each encoder stage.
        decoder_convs: Convolutions in each decoder stage.
    """

    separable: bool = False
    encoder_convs: Annotated[int, Field(ge=1, le=4)] = 2
    decoder_convs: Annotated[int, Field(ge=1, le=4)] = 2


@NETWORKS.register("light_unet")
class LightUNet(UNet):
    """Made to be distilled into: few channels, and BatchNorm, which costs nothing once folded."""

    Arguments = LightUNetArguments

    def __init__(self, arguments: LightUNetArguments) -> None:
        def stage(convs: int, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Module:
            one = (1,) * arguments.dim
            return nn.Sequential(
                *(
                    ConvNormAct(
                        arguments.dim,
                        outputs if index else inputs,
                        outputs,
                        kernel=kernel,
                        stride=one if index else stride,
                        norm=arguments.norm,
                        separable=arguments.separable,
                    )
                    for index in range(convs)
                )
            )

        super().__init__(
            arguments,
            lambda *shape: stage(arguments.encoder_convs, *shape),
            lambda *shape: stage(arguments.decoder_convs, *shape),
        )
