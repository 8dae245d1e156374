"""What every backend is."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mskd.networks import SegmentationNetwork
from mskd.registry import Registry


class Backend(Protocol):
    """A network made ready to run on one device.

    Building one may change ``network``: hand over a copy nobody else uses.
    """

    def __init__(self, network: SegmentationNetwork, device: torch.device) -> None: ...

    def __call__(self, image: Tensor) -> Tensor:
        """Logits ``[N, K, *spatial]`` float32 of ``image`` ``[N, C, *spatial]``, both on the device."""
        ...


BACKENDS: Registry[type[Backend]] = Registry("backend", "mskd.inference.backends")
