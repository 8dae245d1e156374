"""What every segmentation network here is, and how one is built from its name and arguments."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from mskd.errors import MSKDError, SettingsError
from mskd.registry import Registry
from mskd.spec import NetworkSpec, Strict, validate

Network = TypeVar("Network", bound=nn.Module)


class SegmentationNetwork(nn.Module):
    """A network from ``[N, C, *spatial]`` images to ``[N, K, *spatial]`` logits of the same, arbitrary, size.

    One whose stem strides computes them on a coarser grid, and leaves them there where ``enlarges`` is unset.

    A family subclasses this, names the record that validates its arguments, and implements ``_forward`` for inputs
    whose every side is a multiple of ``divisor``; other sizes are padded here and the logits cropped back.
    """

    Arguments: ClassVar[type[Strict]]
    dim: int
    divisor: tuple[int, ...]
    logit_stride: tuple[int, ...]
    """Voxels of the image, along each axis, to one of the logits as they are computed: ones unless the stem strides."""
    enlarges: bool = True
    """Whether logits are interpolated to the size of the image; otherwise they have :meth:`logits_size`."""

    def _forward(self, image: Tensor) -> Tensor:
        raise NotImplementedError

    def levels(self) -> dict[str, int]:
        """Module path -> stride (of the finest axis) of every stage whose output can be tapped, last stage first."""
        raise NotImplementedError

    def logits_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the logits of an image of ``size``."""
        if self.enlarges:
            return tuple(size)
        return tuple((side + step - 1) // step for side, step in zip(size, self.logit_stride, strict=True))

    def forward(self, image: Tensor) -> Tensor:
        size = image.shape[2:]
        missing = [-side % step for side, step in zip(size, self.divisor, strict=True)]
        if tuple(map(sum, zip(size, missing, strict=True))) == self.divisor and self._normalises_instances():
            missing[-1] += self.divisor[-1]  # a single voxel at the deepest level has no deviation to divide by
        if not any(missing):
            return self._forward(image)
        pad = [amount for axis in reversed(missing) for amount in (0, axis)]
        logits = self._forward(F.pad(image, pad))
        box: tuple[Any, ...] = (..., *(slice(0, side) for side in self.logits_size(size)))
        return logits[box]

    def _normalises_instances(self) -> bool:
        return any(isinstance(module, _InstanceNorm) for module in self.modules())


NETWORKS: Registry[type[SegmentationNetwork]] = Registry("network", "mskd.networks")


def build_network(
    spec: NetworkSpec, *, source: str = "network", error: type[MSKDError] = SettingsError
) -> SegmentationNetwork:
    """A freshly initialised network of the registered family ``spec.name``.

    Raises:
        SettingsError: unknown name; ``error``: arguments the family does not take.
    """
    family = NETWORKS[spec.name]
    arguments: Mapping[str, Any] = spec.arguments
    return family(validate(family.Arguments, arguments, source=f"{source} ({spec.name})", error=error))


def require_statistics(network: nn.Module, shape: Sequence[int]) -> None:
    """Refuse training batches that leave a normalisation a single value per channel, before there is one.

    Args:
        shape: ``[N, C, *spatial]`` of a batch, over all processes.

    Raises:
        SettingsError: a level of the network would see one voxel in the whole batch.
    """
    trial = copy.deepcopy(network).to("meta").train()
    try:
        trial(torch.empty(tuple(shape), device="meta"))
    except ValueError as fault:
        if "Expected more than 1" not in str(fault):
            raise
        raise SettingsError(
            f"A batch of {shape[0]} with the patch {tuple(shape[2:])} is a single voxel at the network's deepest level "
            "and has no deviation to normalise by; raise optimization.batch or input.patch, or use fewer levels."
        ) from fault


def count_parameters(network: nn.Module) -> int:
    """Number of trainable weights, each tensor once however often it is aliased."""
    return sum(parameter.numel() for parameter in network.parameters())


def to_device(network: Network, device: torch.device, dim: int) -> Network:
    """Move a network, laid out so that its convolutions run fastest."""
    return network.to(device=device, memory_format=channels_last(dim))  # type: ignore[call-overload]


def channels_last(dim: int) -> torch.memory_format:
    """The memory layout in which 2D or 3D convolutions run fastest."""
    return torch.channels_last if dim == 2 else torch.channels_last_3d
