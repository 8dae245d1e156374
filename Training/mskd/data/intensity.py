"""Random changes of intensity of a normalised patch ``[C, *spatial]``, with nnU-Net's ranges (Isensee et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Change = Callable[[Tensor, np.random.Generator], Tensor]


def noise(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Add white Gaussian noise of variance up to 0.1."""
    spread = np.sqrt(rng.uniform(0, 0.1))
    return image + spread * torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))


def blur(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Convolve with a Gaussian of 0.5 to 1 voxels."""
    sigma = rng.uniform(0.5, 1.0)
    offsets = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    convolve = F.conv2d if image.ndim == 3 else F.conv3d
    channels = image[:, None]
    for axis in range(image.ndim - 1):
        shape = [1] * (image.ndim - 1)
        shape[axis] = len(offsets)
        padding = [0] * (image.ndim - 1)
        padding[axis] = len(offsets) // 2
        channels = convolve(channels, kernel.reshape(1, 1, *shape), padding=tuple(padding))
    return channels[:, 0]


def brightness(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Multiply by 0.75 to 1.25."""
    return image * rng.uniform(0.75, 1.25)


def contrast(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Stretch about the mean by 0.75 to 1.25, within the range that was there."""
    mean = image.mean()
    return ((image - mean) * rng.uniform(0.75, 1.25) + mean).clamp(image.min(), image.max())


def low_resolution(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Sample down to 0.5 to 1 of the size and up again."""
    zoom = rng.uniform(0.5, 1.0)
    size = image.shape[1:]
    mode = "bilinear" if image.ndim == 3 else "trilinear"
    small = F.interpolate(image[None], size=tuple(max(1, round(side * zoom)) for side in size), mode="nearest-exact")
    return F.interpolate(small, size=size, mode=mode, align_corners=False)[0]


def gamma(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Bend the grey-value curve by an exponent of 0.7 to 1.5, a third of the time inverted, mean and spread kept."""
    sign = -1.0 if rng.random() < 1 / 3 else 1.0
    source = image * sign
    low = source.min()
    width = (source.max() - low).clamp_min(1e-7)
    bent = ((source - low) / width) ** rng.uniform(0.7, 1.5)
    bent = (bent - bent.mean()) / bent.std().clamp_min(1e-7)
    return sign * (bent * source.std() + source.mean())


# In the order in which they are applied.
CHANGES: dict[str, Change] = {
    "noise": noise,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "low_resolution": low_resolution,
    "gamma": gamma,
}
