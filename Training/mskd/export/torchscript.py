"""TorchScript: one file for ``torch.jit.load`` and libtorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mskd.export.base import FORMATS, Forward
from mskd.export.metadata import metadata_text
from mskd.inference.traced import trace
from mskd.package import Package

EXTRA_FILE = "mskd.json"


@FORMATS.register("torchscript")
class TorchScript:
    """The traced network; the metadata are its extra file ``mskd.json``."""

    suffix: ClassVar[str] = ".pt"

    @classmethod
    def available(cls) -> str | None:
        return None

    def write(self, package: Package, target: Path) -> None:
        save_trace(trace(package.load_network()), package, target)

    def load(self, target: Path) -> Forward:
        return load_trace(target)


def save_trace(graph: torch.jit.ScriptModule, package: Package, target: Path) -> None:
    """Write a traced network with the metadata inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation, in favour of what cannot export this (see trace)
        torch.jit.save(graph, str(target), _extra_files={EXTRA_FILE: metadata_text(package)})


def load_trace(target: Path) -> Forward:
    """The network of a TorchScript file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation
        graph = torch.jit.load(str(target), map_location="cpu")

    @torch.inference_mode()
    def forward(image: Tensor) -> Tensor:
        return graph(image)

    return forward
