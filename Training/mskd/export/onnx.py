"""ONNX: one file for ONNX Runtime, TensorRT, OpenVINO, browsers and many more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mskd.export.base import FORMATS, Forward
from mskd.export.metadata import KEY, metadata_text
from mskd.inference.runtimes import import_onnxruntime
from mskd.inference.traced import to_onnx
from mskd.package import Package

NEEDED = ("onnx", "onnxruntime")


@FORMATS.register("onnx")
class Onnx:
    """The network from ``image`` to ``logits``; the metadata are its property ``mskd``."""

    suffix: ClassVar[str] = ".onnx"

    @classmethod
    def available(cls) -> str | None:
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        return f"the Python package '{missing[0]}' is missing; install mskd[export]." if missing else None

    def write(self, package: Package, target: Path) -> None:
        import onnx

        model = onnx.load_from_string(to_onnx(package.load_network()))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = package.manifest.classes
        onnx.helper.set_model_props(model, {KEY: metadata_text(package)})
        model.doc_string = f"{package.manifest.title}. Licence: {package.manifest.licence}"
        onnx.checker.check_model(model, full_check=True)
        target.write_bytes(model.SerializeToString())

    def load(self, target: Path) -> Forward:
        session = import_onnxruntime().InferenceSession(str(target), providers=["CPUExecutionProvider"])

        def forward(image: Tensor) -> Tensor:
            return torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])

        return forward
