"""What the tests of the engine share: an image with known labels, and a backend that runs out of memory."""

from __future__ import annotations

import numpy as np
import torch

from mskd.image import Geometry, Image
from mskd.inference.backends.torch_eager import TorchEager

THRESHOLDS = (10.5, 20.5, 30.5)


def levels(geometry: Geometry, channels: int = 1) -> tuple[Image, np.ndarray]:
    """An image of random whole numbers 1 to 40, and the labels a threshold network must give it."""
    voxels = np.random.default_rng(0).integers(1, 41, (channels, *geometry.shape)).astype(np.int16)
    return Image(voxels, geometry), np.digitize(voxels[0], THRESHOLDS).astype(np.uint8)


class Failing(TorchEager):
    """A network that runs out of memory for anything larger than ``largest`` voxels."""

    fault: Exception = MemoryError()
    largest = 0
    measured = False

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if image[:, 0].numel() > self.largest:
            raise self.fault
        return super().__call__(image)
