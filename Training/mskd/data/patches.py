"""Training batches as a pure function of (seed, step): a resumed run sees what the uninterrupted one would have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mskd.data.intensity import CHANGES
from mskd.data.prepared import PreparedCase
from mskd.data.spatial import crop, random_displacement, random_matrix, warp

AXES = {"z": -3, "y": -2, "x": -1}


class Augmentation(Protocol):
    """The part of a recipe that this module reads; see ``AugmentationSettings`` for the meaning of each field."""

    spatial: float
    rotation: float
    scale: tuple[float, float]
    elastic: float

    @property
    def mirror(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Batch:
    """``images`` float32 ``[N, C, *patch]``; ``labels`` int64 ``[N, *patch]``, or None for unlabelled cases."""

    images: Tensor
    labels: Tensor | None
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Crops:
    images: Tensor
    labels: Tensor | None
    cases: tuple[str, ...]

    def to(self, device):
        return Crops(self.images.to(device), None if self.labels is None else self.labels.to(device), self.cases)


def augment(crops: Crops) -> Batch:
    return Batch(crops.images, crops.labels, crops.cases)


class PatchSampler:
    """Draws augmented patches from prepared cases.

    Args:
        patch: Voxels along (y, x), which takes single z slices, or (z, y, x).
        foreground: Share of patches centred on a voxel of a random class among those that the case shows.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        patch: Sequence[int],
        augmentation: Augmentation | None,
        foreground: float,
        seed: int,
    ) -> None:
        self.cases = cases
        self.patch = tuple(patch)
        self.augmentation = augmentation
        self.foreground = foreground
        self.seed = seed

    def draw(self, step: int, indices: range) -> Crops:
        samples = [self._sample(np.random.default_rng((self.seed, step, index))) for index in indices]
        images = torch.stack([image for image, _, _ in samples])
        masks = [labels for _, labels, _ in samples if labels is not None]
        labels = torch.stack(masks).long() if len(masks) == len(indices) else None
        return Crops(images, labels, tuple(name for _, _, name in samples))

    def _sample(self, rng: np.random.Generator) -> tuple[Tensor, Tensor | None, str]:
        case = self.cases[int(rng.integers(len(self.cases)))]
        image = torch.from_numpy(case.image)
        labels = None if case.labels is None else torch.from_numpy(case.labels)
        voxel = self._voxel(case, rng)
        spacing = case.spacing
        if len(self.patch) == 2:
            image, labels = image[:, voxel[0]], None if labels is None else labels[voxel[0]]
            voxel, spacing = voxel[1:], spacing[1:]
        centre = self._centre(voxel, image.shape[1:], rng)
        image, labels = self._spatial(image, labels, centre, spacing, rng)
        return self._intensity(image, rng), labels, case.id

    def _voxel(self, case: PreparedCase, rng: np.random.Generator) -> np.ndarray:
        """The voxel that the patch should show: one of a random class, or any."""
        if case.foreground and rng.random() < self.foreground:
            values = sorted(case.foreground)
            voxels = case.foreground[values[rng.integers(len(values))]]
            return voxels[rng.integers(len(voxels))]
        return np.array([rng.integers(side) for side in case.image.shape[1:]])

    def _centre(self, voxel: np.ndarray, size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        """Where the patch's middle lies: it stays inside a larger volume, and moves freely around a smaller one."""
        middle = (np.asarray(size) - 1) / 2
        slack = (np.asarray(size) - np.asarray(self.patch)) / 2
        inside = np.clip(voxel, middle - slack.clip(0), middle + slack.clip(0))
        free = middle + rng.uniform(-1, 1, len(middle)) * np.abs(slack)
        return np.where(slack > 0, inside, free)

    def _spatial(
        self,
        image: Tensor,
        labels: Tensor | None,
        centre: np.ndarray,
        spacing: Sequence[float],
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor | None]:
        settings = self.augmentation
        if settings is None or rng.random() >= settings.spatial:
            image = crop(image, centre, self.patch)
            labels = None if labels is None else crop(labels[None], centre, self.patch)[0]
        else:
            matrix = random_matrix(rng, spacing, settings.rotation, settings.scale)
            shift = random_displacement(rng, self.patch, settings.elastic) if settings.elastic else None
            image, labels = warp(image, labels, centre, matrix, shift, self.patch)
        flips = [] if settings is None else [AXES[axis] for axis in settings.mirror if rng.random() < 0.5]
        flips = [axis for axis in flips if -axis <= len(self.patch)]
        return image.flip(flips), None if labels is None else labels.flip(flips)

    def _intensity(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        for name, change in CHANGES.items():
            if self.augmentation is not None and rng.random() < getattr(self.augmentation, name):
                image = change(image, rng)
        return image
