"""Deep supervision: the coarser decoder stages answer for the labels too (Lee et al. 2015, as in nnU-Net)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mskd.distillation.taps import Taps
from mskd.networks import SegmentationNetwork
from mskd.networks.blocks import CONV
from mskd.training.losses import segmentation_loss
from mskd.training.settings import LossSettings

FEWEST_VOXELS = 8
"""A stage whose grid over the patch is smaller than this says nothing about shapes."""

Value = TypeVar("Value")


class DeepSupervision(nn.Module):
    """A 1x1 convolution to logits on every decoder stage but the last; ours, never the network's.

    The stages weigh 1/2, 1/4, ..., each against labels sampled down to its grid. What is trained is the network as it
    ships: it gains neither a parameter nor a key.

    Args:
        example: ``[1, C, *patch]`` on the network's device, for the shapes.
    """

    def __init__(self, network: SegmentationNetwork, classes: int, example: Tensor, settings: LossSettings) -> None:
        super().__init__()
        decoder = [path for path in network.levels() if path.startswith("decoder.")]
        self._taps = Taps(network, decoder[1:])
        self._settings = settings
        training = network.training
        with torch.no_grad():
            _, features = self._taps.collect(network.eval(), example)
        network.train(training)
        kept = [stage for stage in features if prod(stage.shape[2:]) >= FEWEST_VOXELS]
        self.heads = nn.ModuleList(CONV[network.dim](stage.shape[1], classes, 1) for stage in kept)
        self.to(example.device)

    def collect(self, call: Callable[[Tensor], Value], images: Tensor) -> tuple[Value, tuple[Tensor, ...]]:
        """What ``call(images)`` returns, and the logits of the coarser stages in that forward pass, finest first."""
        result, features = self._taps.collect(call, images)
        return result, tuple(head(stage) for head, stage in zip(self.heads, features, strict=False))

    def terms(self, coarse: tuple[Tensor, ...], labels: Tensor) -> dict[str, Tensor]:
        """The weighted sum over the stages, as the one term ``supervision``."""
        if not coarse:
            return {}
        parts = []
        for depth, logits in enumerate(coarse, start=1):
            size = logits.shape[2:]
            near = F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
            parts.append(segmentation_loss(logits, near, self._settings) / 2**depth)
        return {"supervision": torch.stack(parts).sum()}
