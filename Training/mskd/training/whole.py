"""A network over a whole prepared case, on the network's own grid: for validation, and to ask a teacher once."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from mskd.data.prepared import PreparedCase
from mskd.events import CancelCheck, never
from mskd.inference.plan import WINDOW_DEPENDENT
from mskd.inference.windows import Shape, half, make_plan, predict
from mskd.networks.base import channels_last

WHOLE = 8
"""A case of up to this many patches goes through the network in one piece."""
SLICES = 8
"""z slices that a 2D network takes at a time."""


@torch.inference_mode()
def whole_logits(
    network: nn.Module, case: PreparedCase, patch: Sequence[int], device: torch.device, cancelled: CancelCheck = never
) -> Tensor:
    """Logits float32 ``[K, z, y, x]`` of a prepared case, on the network's own grid.

    Raises:
        Cancelled: asked to stop, before each window.
    """
    dim, size = len(patch), case.image.shape[1:]
    layout = channels_last(dim)

    def forward(part: Tensor) -> Tensor:
        logits: Tensor = network(part.contiguous(memory_format=layout))
        return logits.float()

    seen = window(network, size, patch)
    plan = make_plan((size[0], size[1], size[2]), seen, half(seen, dim))
    volume = torch.from_numpy(np.array(case.image)).to(device)
    return predict(forward, volume, plan, dim, on_window=lambda done, total: None, cancelled=cancelled)


def window(network: nn.Module, size: Sequence[int], patch: Sequence[int]) -> Shape:
    """The whole case where it is not much larger than the patch, else twice the patch along each axis.

    A network whose result depends on the size of what it sees gets windows of the patch it was trained on.
    """
    z, y, x = size
    if len(patch) == 2:
        return min(SLICES, z), y, x
    dependent = any(isinstance(module, WINDOW_DEPENDENT) for module in network.modules())
    if not dependent and prod(size) <= WHOLE * prod(patch):
        return z, y, x
    z, y, x = (side if dependent else 2 * side for side in patch)
    return z, y, x
