"""A volume in one piece or in overlapping windows, blended with Gaussian weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import ceil

import torch
from torch import Tensor

from mskd.errors import Cancelled
from mskd.events import CancelCheck

Shape = tuple[int, int, int]
OVERLAP = 0.5
SIGMA = 0.125
"""Width of the Gaussian as a share of the window's side (nnU-Net, Isensee et al. 2021)."""


@dataclass(frozen=True)
class Plan:
    """Windows of one size over a volume.

    Args:
        shape: Voxels (z, y, x) of the prepared volume.
        window: Voxels (z, y, x) of a window, never more than ``shape``. A 2D network sees its z slices as a batch.
        starts: First voxel of each window.
    """

    shape: Shape
    window: Shape
    starts: tuple[Shape, ...]

    @property
    def whole(self) -> bool:
        """Whether one window is the volume."""
        return self.window == self.shape


def make_plan(shape: Shape, window: Shape, dim: int) -> Plan:
    """Evenly spread windows that overlap by about half; z slices of a 2D network do not overlap."""
    fitted = (min(window[0], shape[0]), min(window[1], shape[1]), min(window[2], shape[2]))
    z, y, x = (
        _starts(side, step, 0.0 if dim == 2 and axis == 0 else OVERLAP)
        for axis, (side, step) in enumerate(zip(shape, fitted, strict=True))
    )
    return Plan(shape, fitted, tuple(product(z, y, x)))


def _starts(side: int, window: int, overlap: float) -> list[int]:
    room = side - window
    stride = max(1, int(window * (1 - overlap)))
    count = ceil(room / stride) + 1
    return [round(index * room / (count - 1)) for index in range(count)] if count > 1 else [0]


def importance(plan: Plan, device: torch.device) -> Tensor:
    """Weight ``[z, y, x]`` of a window's voxels: a Gaussian along every axis that has a seam, flat along others."""
    weight = torch.ones(1, 1, 1, device=device)
    for axis, (side, window) in enumerate(zip(plan.shape, plan.window, strict=True)):
        if side == window:
            continue
        offset = torch.arange(window, device=device, dtype=torch.float32) - (window - 1) / 2
        along = torch.exp(-0.5 * (offset / (SIGMA * window)) ** 2).clamp_min(1e-3)
        weight = weight * along.reshape([-1 if own == axis else 1 for own in range(3)])
    return weight.expand(plan.window)


def predict(
    forward: Callable[[Tensor], Tensor],
    volume: Tensor,
    plan: Plan,
    dim: int,
    *,
    on_window: Callable[[int, int], None],
    cancelled: CancelCheck,
) -> Tensor:
    """Logits ``[K, z, y, x]`` of ``volume`` ``[C, z, y, x]``.

    Args:
        forward: From ``[N, C, *spatial]`` to logits ``[N, K, *spatial]``.
        volume: Prepared voxels on the device of ``forward``.
        plan: The windows.
        dim: 2 or 3, what ``forward`` takes.
        on_window: Told (done, total) before the first window and after each.
        cancelled: Asked before each window.

    Raises:
        Cancelled: ``cancelled`` said so.
    """
    total = len(plan.starts)
    summed = weights = None
    weight = importance(plan, volume.device)
    on_window(0, total)
    for done, start in enumerate(plan.starts):
        if cancelled():
            raise Cancelled("The segmentation was cancelled; nothing was written.")
        box = tuple(slice(low, low + side) for low, side in zip(start, plan.window, strict=True))
        all_channels = (slice(None), *box)
        logits = _forward(forward, volume[all_channels], dim)
        if plan.whole:
            on_window(1, 1)
            return logits
        if summed is None or weights is None:
            summed = logits.new_zeros((logits.shape[0], *plan.shape))
            weights = logits.new_zeros(plan.shape)
        summed[all_channels].addcmul_(logits, weight)
        weights[box] += weight
        on_window(done + 1, total)
    if summed is None or weights is None:
        raise ValueError("the plan has no window")
    return summed.div_(weights)


def _forward(forward: Callable[[Tensor], Tensor], piece: Tensor, dim: int) -> Tensor:
    if dim == 2:
        return forward(piece.transpose(0, 1)).transpose(0, 1)
    return forward(piece[None])[0]
