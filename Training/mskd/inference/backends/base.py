"""What every backend is, and how one is built by name."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mskd.errors import SettingsError
from mskd.networks import SegmentationNetwork
from mskd.registry import Registry


class Backend(Protocol):
    """A network made ready to run on one device.

    Building one may change ``network``: hand over a copy nobody else uses. It takes images of any size, one after the
    other; the logits belong to the caller and are not written to again.

    Attributes:
        devices: Types of device it runs on.
        precisions: Numbers it can compute with; weights, images and logits are float32 outside.
        measured: Whether ``auto`` may try it: false where getting ready takes longer than it saves on one image.
    """

    devices: ClassVar[tuple[str, ...]]
    precisions: ClassVar[tuple[str, ...]]
    measured: ClassVar[bool]

    def __init__(self, network: SegmentationNetwork, device: torch.device, precision: str = "float32") -> None: ...

    def __call__(self, image: Tensor) -> Tensor:
        """Logits ``[N, K, *spatial]`` float32 of ``image`` ``[N, C, *spatial]``, both on the device.

        As large as the network gives them (see ``SegmentationNetwork.logits_size``).
        """
        ...

    @classmethod
    def available(cls) -> str | None:
        """None where it can be used, or else a sentence that says what is missing."""
        ...


BACKENDS: Registry[type[Backend]] = Registry("backend", "mskd.inference.backends")


def make_backend(name: str, network: SegmentationNetwork, device: torch.device, precision: str = "float32") -> Backend:
    """The registered backend ``name`` with a network that becomes its own.

    Raises:
        SettingsError: unknown, not installed, or not made for the device or precision.
    """
    kind = BACKENDS[name]
    missing = kind.available()
    if missing is not None:
        raise SettingsError(f"The backend '{name}' cannot be used here: {missing}")
    for what, value, known in (("device", device.type, kind.devices), ("precision", precision, kind.precisions)):
        if value not in known:
            raise SettingsError(
                f"The backend '{name}' does not know the {what} '{value}' (it takes {', '.join(known)}); "
                "choose one of those, or another backend."
            )
    return kind(network, device, precision)
