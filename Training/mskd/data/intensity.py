"""Random changes of intensity of a normalised patch, with nnU-Net's ranges (Isensee et al. 2021).

Each change is drawn as numbers, one row a channel (NaN where the channel is left as it is), and applied in place later,
on whatever device. Sums are taken one axis after another, so that they do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mskd.data.spatial import either_side_of_one

REACH = 2
"""Voxels of the blur's kernel on either side."""
TINY = 1e-7


@dataclass(frozen=True)
class Change:
    """How a change is drawn for one channel, and how it is done to one channel ``[*patch]`` in place.

    Args:
        draw: (generator, axes of thin voxels, number of axes) -> numbers.
        apply: (channel, numbers) -> nothing.
        share: Probability that a channel takes part when its sample does.
    """

    draw: Callable[[np.random.Generator, Sequence[int], int], Sequence[float]]
    apply: Callable[[Tensor, Sequence[float]], None]
    share: float = 1.0


def draw_change(change: Change, rng: np.random.Generator, channels: int, thin: Sequence[int], dim: int) -> np.ndarray:
    """The numbers of every channel: ``[channels, n]``, NaN for those that do not take part."""
    rows = np.array([change.draw(rng, thin, dim) for _ in range(channels)])
    rows[rng.random(channels) >= change.share] = np.nan
    return rows


def apply_change(change: Change, image: Tensor, numbers: np.ndarray) -> None:
    """Do a drawn change to ``[C, *patch]``, in place."""
    for channel, row in zip(image, numbers.tolist(), strict=True):
        if row[0] == row[0]:
            change.apply(channel, row)


def noise(channel: Tensor, numbers: Sequence[float]) -> None:
    """Add white Gaussian noise; its seed is drawn too, so a sample is the same wherever it is made."""
    spread, seed = numbers
    generator = torch.Generator(channel.device).manual_seed(int(seed))
    channel.add_(torch.randn(channel.shape, generator=generator, device=channel.device), alpha=spread)


def blur(channel: Tensor, numbers: Sequence[float]) -> None:
    """Convolve with a Gaussian of these sigmas in voxels (0: not along this axis), mirrored at the rim."""
    offsets = np.arange(-REACH, REACH + 1)
    for axis, sigma in enumerate(numbers):
        if sigma > 0 and channel.shape[axis] > 1:
            kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
            _filter(channel, axis, (kernel / kernel.sum()).tolist())


def _filter(channel: Tensor, axis: int, kernel: Sequence[float]) -> None:
    """Convolve along one axis of a contiguous tensor, mirrored at the rim."""
    shape = list(channel.shape)
    size, shape[axis] = shape[axis], shape[axis] + 2 * REACH
    padded = channel.new_empty(shape)
    padded.narrow(axis, REACH, size).copy_(channel)
    for place in (*range(-REACH, 0), *range(size, size + REACH)):
        mirrored = abs(place) % (2 * size - 2)
        padded.select(axis, place + REACH).copy_(channel.select(axis, min(mirrored, 2 * size - 2 - mirrored)))
    row, stride = padded.view(-1), padded.stride(axis)  # as one long row: what it mixes beyond the rim is left out
    length = len(row) - 2 * REACH * stride
    total = row[:length] * kernel[0]
    for step in range(1, 2 * REACH + 1):
        total.add_(row[step * stride : step * stride + length], alpha=kernel[step])
    channel.copy_(total.as_strided(channel.shape, padded.stride()))


def brightness(channel: Tensor, numbers: Sequence[float]) -> None:
    """Multiply."""
    channel.mul_(numbers[0])


def contrast(channel: Tensor, numbers: Sequence[float]) -> None:
    """Stretch about the mean, within the range that was there."""
    (factor,) = numbers
    low, high = (float(value) for value in torch.aminmax(channel))
    mean = _sum(channel) / channel.numel()
    channel.mul_(factor).add_(mean * (1 - factor)).clamp_(low, high)


def low_resolution(channel: Tensor, numbers: Sequence[float]) -> None:
    """Sample down to this share of the voxels along each axis, and linearly up again."""
    mode = {2: "bilinear", 3: "trilinear"}[channel.ndim]
    small = [max(1, round(side * zoom)) for side, zoom in zip(channel.shape, numbers, strict=True)]
    sampled = F.interpolate(channel[None, None], size=small, mode="nearest-exact")
    channel.copy_(F.interpolate(sampled, size=channel.shape, mode=mode, align_corners=False)[0, 0])


def gamma(channel: Tensor, numbers: Sequence[float]) -> None:
    """Bend the grey-value curve (a negative exponent bends the inverted one), mean and spread kept."""
    (exponent,) = numbers
    low, high = (float(value) for value in torch.aminmax(channel))
    if exponent < 0:
        low, high = high, low
    width = high - low if abs(high - low) > TINY else TINY
    unit = channel.sub_(low).mul_(1 / width)
    mean, spread = _mean_and_spread(unit)
    unit.log_().mul_(abs(exponent)).exp_()
    bent_mean, bent_spread = _mean_and_spread(unit)
    factor = spread / max(bent_spread, TINY)
    unit.mul_(factor * width).add_(low + width * (mean - bent_mean * factor))


def _sum(values: Tensor) -> float:
    while values.ndim:
        values = values.sum(-1)
    return float(values)


def _mean_and_spread(values: Tensor) -> tuple[float, float]:
    mean, square = _sum(values) / values.numel(), _sum(values.square()) / values.numel()
    return mean, max(0.0, square - mean**2) ** 0.5


def _factors(low: float, high: float, sign: float = 1.0) -> Callable[..., Sequence[float]]:
    return lambda rng, thin, dim: [sign * either_side_of_one(rng, low, high)]


# In the order in which they are applied.
CHANGES: dict[str, Change] = {
    "noise": Change(lambda rng, thin, dim: [rng.uniform(0, 0.1) ** 0.5, rng.integers(1 << 53)], noise),
    "blur": Change(
        lambda rng, thin, dim: [rng.uniform(0.5, 1) if axis in thin else 0.0 for axis in range(dim)], blur, share=0.5
    ),
    "brightness": Change(_factors(0.75, 1.25), brightness),
    "contrast": Change(_factors(0.75, 1.25), contrast),
    "low_resolution": Change(
        lambda rng, thin, dim: [zoom if axis in thin else 1.0 for zoom in [rng.uniform(0.5, 1)] for axis in range(dim)],
        low_resolution,
        share=0.5,
    ),
    "gamma_inverted": Change(_factors(0.7, 1.5, -1.0), gamma),
    "gamma": Change(_factors(0.7, 1.5), gamma),
}
