"""From logits on the prepared grid to labels on the image's own, without ever holding full-size logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mskd.errors import Cancelled
from mskd.events import CancelCheck
from mskd.image.geometry import LabelMap
from mskd.inference.grid import Grid
from mskd.inference.region import Region

SLAB_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
"""One class of a slab: what fits a CPU's cache, or fills a GPU."""


@torch.inference_mode()
def restore(
    logits: Tensor,
    grid: Grid,
    region: Region | None = None,
    *,
    on_slab: Callable[[int, int], None],
    cancelled: CancelCheck,
) -> LabelMap:
    """Interpolate the logits linearly and take the largest, slab by slab and class by class.

    Args:
        logits: ``[K, z, y, x]`` on the prepared grid.
        grid: The way back to the source grid.
        region: Voxels whose centre lies outside become background.
        on_slab: Told (done, total).
        cancelled: Asked before each slab.

    Returns:
        Labels on the source grid; 0 outside the crop.

    Raises:
        Cancelled: ``cancelled`` said so.
    """
    labels = np.zeros(grid.source.shape, dtype=np.uint8)
    target = grid.view(labels)
    depth, height, width = grid.crop_shape
    rows = max(1, SLAB_BYTES.get(logits.device.type, SLAB_BYTES["cpu"]) // (4 * height * width))
    total = -(-depth // rows)
    for index in range(total):
        if cancelled():
            raise Cancelled("The segmentation was cancelled; nothing was written.")
        first, last = index * rows, min(depth, (index + 1) * rows)
        target[first:last] = _slab(logits, grid.crop_shape, first, last).cpu().numpy()
        on_slab(index + 1, total)
    if region is not None:
        target[~region.mask(grid.oriented, grid.crop)] = 0
    return LabelMap(labels, grid.source)


def _slab(logits: Tensor, shape: tuple[int, int, int], first: int, last: int) -> Tensor:
    """Labels of target slices ``first`` to ``last`` (excluded)."""
    lower, upper, share = _neighbours(logits.shape[1], shape[0], first, last, logits.device)
    best = winner = None
    for value, one in enumerate(logits):
        planes = one[lower]
        if logits.shape[1] != shape[0]:
            planes = torch.lerp(planes, one[upper], share)
        if planes.shape[1:] != shape[1:]:
            planes = F.interpolate(planes[None], size=shape[1:], mode="bilinear", align_corners=False)[0]
        if best is None or winner is None:
            best, winner = planes.clone(), torch.zeros(planes.shape, dtype=torch.uint8, device=planes.device)
            continue
        winner.masked_fill_(planes > best, value)
        torch.maximum(best, planes, out=best)
    if winner is None:
        raise ValueError("the logits have no class")
    return winner


def _neighbours(source: int, target: int, first: int, last: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each target slice: the source slices around its centre, and the share of the upper one."""
    centre = (torch.arange(first, last, dtype=torch.float64) + 0.5) * (source / target) - 0.5
    centre = centre.clamp(0, source - 1)
    lower = centre.floor().long()
    upper = (lower + 1).clamp_max(source - 1)
    return lower.to(device), upper.to(device), (centre - lower).float()[:, None, None].to(device)
