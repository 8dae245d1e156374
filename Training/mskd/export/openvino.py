"""OpenVINO's own format: a folder with ``model.xml`` and ``model.bin``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mskd.export.base import FORMATS, Forward
from mskd.export.metadata import KEY, metadata_text
from mskd.inference.backends.openvino import to_openvino
from mskd.inference.runtimes import import_openvino
from mskd.package import Package
from mskd.package.manifest import CARD

MODEL = "model.xml"
METADATA = "metadata.json"


@FORMATS.register("openvino")
class OpenVINO:
    """The network from ``image`` to ``logits`` in float32; the metadata lie beside it and in its runtime info."""

    suffix: ClassVar[str] = ""

    @classmethod
    def available(cls) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "the Python package 'openvino' is missing; install mskd[fast]."
        return None

    def write(self, package: Package, target: Path) -> None:
        openvino = import_openvino()
        model = self.convert(package)
        model.set_rt_info(metadata_text(package), KEY)
        openvino.save_model(model, target / MODEL, compress_to_fp16=False)
        (target / METADATA).write_text(metadata_text(package), encoding="utf-8")
        (target / CARD).write_bytes(package.files[CARD])

    def convert(self, package: Package) -> Any:
        """The ``openvino.Model`` to write."""
        return to_openvino(package.load_network())

    def load(self, target: Path) -> Forward:
        openvino = import_openvino()
        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # Windows cannot rename a folder with a mapped file in it
        compiled = core.compile_model(core.read_model(target / MODEL), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def forward(image: Tensor) -> Tensor:
            return torch.from_numpy(compiled(image.numpy())[0].copy())

        return forward
