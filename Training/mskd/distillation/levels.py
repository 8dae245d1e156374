"""Where features are taken: which stages of student and teacher are paired, and how their grids meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, log
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mskd.distillation.regions import pool_to
from mskd.distillation.taps import Taps
from mskd.errors import SettingsError

COARSE = (4, 8)


@runtime_checkable
class HasLevels(Protocol):
    """A network that names the stages whose output can be tapped (module path -> stride, last stage first)."""

    def levels(self) -> dict[str, int]: ...


def match_grid(features: Tensor, own: Sequence[float], common: Sequence[float], shape: Sequence[int]) -> Tensor:
    """``features`` without what the network padded beyond the image, averaged to the coarser grid of the two.

    Args:
        features: ``[B, C, *grid]``.
        own, common: Voxels per feature voxel and axis, of these features and of the grid to reach.
        shape: Spatial shape of the image.
    """
    inside = [min(side, ceil(size / step)) for side, size, step in zip(features.shape[2:], shape, own, strict=True)]
    for axis, side in enumerate(inside, start=2):
        if side < features.shape[axis]:  # the gradient of a cut is a copy of everything
            features = features.narrow(axis, 0, side)
    steps = [coarse / fine for coarse, fine in zip(common, own, strict=True)]
    grid = [ceil(side / step) for side, step in zip(inside, steps, strict=True)]
    return pool_to(features, grid, steps)


def choose_levels(
    student: nn.Module, teacher: nn.Module, student_paths: Sequence[str] = (), teacher_paths: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The module paths to pair: what the settings name, else the last decoder stage and one at stride 4 to 8.

    Of the stages at stride 4 to 8 the pair with the most equal strides is taken, and of those the finest. A network
    without one keeps the last stage alone. Where one side alone is named, the other takes its nearest strides.

    Raises:
        SettingsError: a network that names no levels, or overrides that do not pair up.
    """
    ours = _strides(student, student_paths, "student")
    theirs = _strides(teacher, teacher_paths, "teacher")
    if student_paths or teacher_paths:
        ours = ours if student_paths else _nearest(ours, list(theirs.values()))
        theirs = theirs if teacher_paths else _nearest(theirs, list(ours.values()))
        if len(ours) != len(theirs):
            raise SettingsError(
                f"student_levels pairs {len(ours)} modules with {len(theirs)} of the teacher; name the same number."
            )
        return tuple(ours), tuple(theirs)
    pairs = [(next(iter(ours)), next(iter(theirs)))]
    coarse = [
        (abs(log(ours[mine] / theirs[other])), ours[mine], mine, other)
        for mine in list(ours)[1:]
        for other in list(theirs)[1:]
        if COARSE[0] <= ours[mine] <= COARSE[1]
    ]
    if coarse:
        pairs.append(min(coarse, key=lambda choice: choice[:2])[2:])
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def _strides(network: nn.Module, paths: Sequence[str], role: str) -> dict[str, int]:
    """Path -> stride of the candidates: the named ones (1 where the network does not tell), else all levels."""
    if not isinstance(network, HasLevels):
        if not paths:
            raise SettingsError(f"The {role} does not name its stages; set {role}_levels to module paths.")
        return dict.fromkeys(paths, 1)
    levels = network.levels()
    return {path: levels.get(path, 1) for path in paths} if paths else levels


def _nearest(levels: dict[str, int], strides: list[int]) -> dict[str, int]:
    """For each stride the stage with the nearest one, the last stage first among equals."""
    chosen = [min(levels, key=lambda path: abs(log(levels[path] / stride))) for stride in strides]
    return {path: levels[path] for path in chosen}


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """All modules in eval mode, and each back in its own mode afterwards."""
    modes = {module: module.training for network in networks for module in network.modules()}
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def probe(network: nn.Module, taps: Taps, example: Tensor, role: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits and features of one example, without touching statistics or modes of the network.

    Raises:
        SettingsError: logits that are not one tensor of the image's size, or features without the image's axes.
    """
    with evaluating(network):
        logits, features = taps.collect(network, example[:1])
    if not isinstance(logits, Tensor) or logits.shape[2:] != example.shape[2:]:
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise SettingsError(
            f"The {role} returns {what} for an image of {tuple(example.shape)}; it must return logits of the same size."
        )
    for path, tensor in zip(taps.paths, features, strict=True):
        if tensor.ndim != example.ndim:
            raise SettingsError(
                f"The {role}'s '{path}' has shape {tuple(tensor.shape)}; features need {example.ndim - 2} spatial axes."
            )
    return logits, features


@dataclass(frozen=True)
class Side:
    """The student or the teacher, and the stages at which it is tapped.

    Args:
        taps: The network and the module paths.
        strides: Of each stage, voxels per feature voxel and axis.
        channels: Of each stage.
        classes: Channels of the logits.
    """

    taps: Taps
    strides: tuple[tuple[float, ...], ...]
    channels: tuple[int, ...]
    classes: int

    @classmethod
    def of(cls, network: nn.Module, paths: Sequence[str], example: Tensor, role: str) -> Side:
        """Probe ``network``; raises what ``Taps`` and ``probe`` raise."""
        taps = Taps(network, paths)
        logits, features = probe(network, taps, example, role)
        strides = tuple(feature_strides(network, example, tensor) for tensor in features)
        return cls(taps, strides, tuple(tensor.shape[1] for tensor in features), logits.shape[1])


def feature_strides(network: nn.Module, image: Tensor, features: Tensor) -> tuple[float, ...]:
    """Voxels per feature voxel and axis, counting the padding that a network with a ``divisor`` adds to the image.

    A whole number wherever one explains the sizes: 19 voxels and 10 features are a stride of 2, not of 1.9.
    """
    shape = image.shape[2:]
    divisor = getattr(network, "divisor", (1,) * len(shape))
    strides = []
    for size, step, side in zip(shape, divisor, features.shape[2:], strict=True):
        padded = ceil(size / step) * step
        whole = ceil(padded / side)
        strides.append(float(whole) if ceil(padded / whole) == side else padded / side)
    return tuple(strides)
