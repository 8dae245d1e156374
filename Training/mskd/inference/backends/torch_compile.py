"""PyTorch's own compiler (inductor), for windows of one size."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import Any, ClassVar

import torch
from torch import Tensor

from mskd.inference.backends.base import BACKENDS
from mskd.inference.backends.torch_eager import TorchEager
from mskd.networks import SegmentationNetwork

COMPILERS = ("cl",) if sys.platform == "win32" else ("g++", "clang++", "c++")


@BACKENDS.register("torch_compile")
class TorchCompile(TorchEager):
    """Compiles for a size that comes twice in a row, as windows do, in tens of seconds; others run eagerly.

    Inductor of PyTorch 2.13 cannot compile these networks for sizes that change. ``auto`` never tries this.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    measured: ClassVar[bool] = False

    def __init__(self, network: SegmentationNetwork, device: torch.device, precision: str = "float32") -> None:
        super().__init__(network, device, precision)
        self._size: torch.Size | None = None
        self._eager = self._network._forward
        how: dict[str, Any] = {"options": {"freezing": True}}  # constant weights, laid out for the processor
        if device.type == "cuda":
            how = {"mode": "max-autotune-no-cudagraphs"}
        # The padding before it stays in Python, so that sizes with the same padded size share their code.
        self._compiled = torch.compile(self._eager, dynamic=False, **how)

    @classmethod
    def available(cls) -> str | None:
        named = os.environ.get("CXX")
        if not any(shutil.which(name) for name in ([named] if named else COMPILERS)):
            return (
                f"there is no C++ compiler ({named or ', '.join(COMPILERS)}); install one, or choose another backend."
            )
        if torch.cuda.is_available() and importlib.util.find_spec("triton") is None:
            return "the Python package 'triton' is missing; install it, or choose another backend."
        return None

    def __call__(self, image: Tensor) -> Tensor:
        repeated = image.shape == self._size
        self._size = image.shape
        self._network._forward = self._compiled if repeated else self._eager  # type: ignore[method-assign, unused-ignore]
        return super().__call__(image)
