"""Training batches as a pure function of (seed, step, index): a resumed run sees what the uninterrupted one would have.

``PatchSampler.draw`` reads, on the CPU; ``augment`` does all else, on the device the crops lie on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mskd.data.intensity import CHANGES, apply_change, draw_change
from mskd.data.prepared import PreparedCase
from mskd.data.spatial import Placement, cut, place, random_displacement, random_matrix, thin_axes
from mskd.data.warp import warp
from mskd.spec import IGNORE

AXES = {"z": -3, "y": -2, "x": -1}
OUTSIDE_LOGIT = 10.0
"""Of the background, where a patch reaches out of the volume: the labels say background there too."""


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
    """What a network is trained on.

    Args:
        images: float32 ``[N, C, *patch]``.
        labels: int64 ``[N, *patch]``, -1 where not known; None where a case has none.
        teacher_logits: float32 ``[N, K, *patch]``; None where a case has none.
    """

    images: Tensor
    labels: Tensor | None
    cases: tuple[str, ...]
    teacher_logits: Tensor | None = None


@dataclass(frozen=True)
class Crop:
    """The box that one sample is made of, and all that was drawn for it.

    Args:
        image: float32 ``[C, *box]``.
        labels: uint8 ``[*box]`` or None.
        logits: float16 ``[K, *box]`` or None.
        changes: Name of a change of intensity and its numbers, in order.
        values: After left and right were mirrored, the new value of each label, ``[256]``; None where they stay.
    """

    case: str
    image: Tensor
    labels: Tensor | None
    logits: Tensor | None
    placement: Placement
    changes: tuple[tuple[str, np.ndarray], ...] = ()
    values: Tensor | None = None

    def to(self, device: torch.device) -> Crop:
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Crop:
        """The same in memory that a GPU copies from by itself."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Crop:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Crops:
    """The samples of a batch before ``augment``; every one is itself alone, whichever batch it is in."""

    samples: tuple[Crop, ...]
    patch: tuple[int, ...]

    def to(self, device: torch.device) -> Crops:
        return Crops(tuple(sample.to(device) for sample in self.samples), self.patch)

    def pin_memory(self) -> Crops:
        return Crops(tuple(sample.pin_memory() for sample in self.samples), self.patch)


class PatchSampler:
    """Draws patches from prepared cases.

    Args:
        patch: Voxels along (y, x), which takes single z slices, or (z, y, x).
        foreground: Share of patches centred on a voxel of a random class among those that the case shows.
        swap: Pairs of label values that change places when a patch is mirrored along the patient's left-right axis.
        left_right: That axis of the arrays.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        patch: Sequence[int],
        augmentation: Augmentation | None,
        foreground: float,
        seed: int,
        swap: Sequence[tuple[int, int]] = (),
        left_right: str = "x",
    ) -> None:
        self.cases = cases
        self.patch = tuple(patch)
        self.augmentation = augmentation
        self.foreground = foreground
        self.seed = seed
        self.left_right = AXES[left_right]
        self.values = torch.arange(256, dtype=torch.uint8)
        for first, second in swap:
            self.values[[first, second]] = self.values[[second, first]]
        self.swaps = bool(swap)

    def draw(self, step: int, indices: range) -> Crops:
        """Read these samples of a step: the same for the same sampler arguments, whatever else is read with them."""
        return Crops(
            tuple(self._sample(np.random.default_rng((self.seed, step, index))) for index in indices), self.patch
        )

    def _sample(self, rng: np.random.Generator) -> Crop:
        case = self.cases[int(rng.integers(len(self.cases)))]
        image, labels, logits, spacing = case.image, case.labels, case.logits, case.spacing
        voxel = self._voxel(case, rng)
        if len(self.patch) == 2:
            image = image[:, voxel[0]]
            labels, logits = (None if part is None else part[..., voxel[0], :, :] for part in (labels, logits))
            voxel, spacing = voxel[1:], spacing[1:]
        size = image.shape[1:]
        placement, mirrored = self._placement(self._centre(voxel, size, rng), size, spacing, rng)
        low, high = placement.low, placement.high
        return Crop(
            case.id,
            cut(image, low, high),
            None if labels is None else cut(labels, low, high),
            None if logits is None else _cut_logits(logits, low, high),
            placement,
            self._changes(len(image), spacing, rng),
            self.values if self.swaps and mirrored else None,
        )

    def _voxel(self, case: PreparedCase, rng: np.random.Generator) -> list[int]:
        """The voxel that the patch should show: one of a random class, or any."""
        if case.foreground and rng.random() < self.foreground:
            values = sorted(case.foreground)
            voxels = case.foreground[values[rng.integers(len(values))]]
            return voxels[rng.integers(len(voxels))].tolist()
        return [int(rng.integers(side)) for side in case.image.shape[1:]]

    def _centre(self, voxel: Sequence[int], size: Sequence[int], rng: np.random.Generator) -> list[float]:
        """Where the patch's middle lies: it stays inside a larger volume, and moves freely around a smaller one."""
        centre = []
        for wanted, whole, side in zip(voxel, size, self.patch, strict=True):
            middle, slack, free = (whole - 1) / 2, (whole - side) / 2, rng.uniform(-1, 1)
            inside = min(max(wanted, middle - slack), middle + slack)
            centre.append(inside if slack > 0 else middle + free * abs(slack))
        return centre

    def _placement(
        self, centre: Sequence[float], size: Sequence[int], spacing: Sequence[float], rng: np.random.Generator
    ) -> tuple[Placement, bool]:
        """Where the patch comes from, and whether left and right were mirrored."""
        settings, matrix, displacement = self.augmentation, None, None
        if settings is not None and rng.random() < settings.spatial:
            matrix = random_matrix(rng, spacing, settings.rotation, settings.scale)
            displacement = random_displacement(rng, spacing, settings.elastic) if settings.elastic else None
        flips = [] if settings is None else [AXES[axis] for axis in settings.mirror if rng.random() < 0.5]
        flips = [axis for axis in flips if -axis <= len(self.patch)]
        return place(centre, self.patch, size, matrix, displacement, tuple(flips)), self.left_right in flips

    def _changes(
        self, channels: int, spacing: Sequence[float], rng: np.random.Generator
    ) -> tuple[tuple[str, np.ndarray], ...]:
        if self.augmentation is None:
            return ()
        thin, dim = thin_axes(spacing), len(self.patch)
        chosen = [name for name in CHANGES if rng.random() < getattr(self.augmentation, name)]
        return tuple((name, draw_change(CHANGES[name], rng, channels, thin, dim)) for name in chosen)


def _cut_logits(logits: np.ndarray, low: Sequence[int], high: Sequence[int]) -> Tensor:
    background = cut(logits[:1], low, high, OUTSIDE_LOGIT)
    return torch.cat([background, cut(logits[1:], low, high)])


def augment(crops: Crops) -> Batch:
    """Turn crops into the batch they were drawn for, on their device."""
    samples, patch = crops.samples, crops.patch
    first = samples[0]
    images = first.image.new_empty((len(samples), len(first.image), *patch))
    labels, logits = None, None
    if all(sample.labels is not None for sample in samples):
        labels = torch.empty((len(samples), *patch), dtype=torch.int64, device=images.device)
    if first.logits is not None and all(sample.logits is not None for sample in samples):
        logits = images.new_empty((len(samples), len(first.logits), *patch))
    for index, sample in enumerate(samples):
        image, mask, taught = _spatial(sample, patch)
        images[index] = image
        for name, numbers in sample.changes:
            apply_change(CHANGES[name], images[index], numbers)
        if labels is not None and mask is not None:
            labels[index] = mask
            if mask.max() == IGNORE:
                labels[index].masked_fill_(mask == IGNORE, -1)
        if logits is not None and taught is not None:
            logits[index] = taught
    return Batch(images, labels, tuple(sample.case for sample in samples), logits)


def _spatial(sample: Crop, patch: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if sample.placement.matrix is not None:
        image, labels, logits = warp(sample.image, sample.labels, sample.logits, sample.placement, patch)
    else:
        flips = sample.placement.flips
        image = sample.image.flip(flips)
        labels, logits = (None if part is None else part.flip(flips) for part in (sample.labels, sample.logits))
    if sample.values is not None and labels is not None:
        labels = sample.values.index_select(0, labels.flatten().int()).view(labels.shape)
    if sample.values is not None and logits is not None:
        logits = logits[sample.values[: len(logits)].long()]
    return image, labels, logits
