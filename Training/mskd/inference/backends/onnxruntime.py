"""ONNX Runtime: on the processor, and on the accelerators its builds know."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mskd.errors import SettingsError
from mskd.inference.backends.base import BACKENDS
from mskd.inference.runtimes import import_onnxruntime
from mskd.inference.traced import Logits, to_onnx
from mskd.networks import SegmentationNetwork

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
    # PyTorch has no name for a GPU under DirectML: there the image comes from the processor.
    "cpu": "DmlExecutionProvider",
}
NEEDED = ("onnxruntime", "onnx")
WARNINGS_OFF = 3


@BACKENDS.register("onnxruntime")
class OnnxRuntime:
    """One session for all sizes, bound to PyTorch's memory where both compute on the same device."""

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda", "mps")
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    measured: ClassVar[bool] = True

    def __init__(self, network: SegmentationNetwork, device: torch.device, precision: str = "float32") -> None:
        onnxruntime = import_onnxruntime()
        providers = choose_providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = WARNINGS_OFF
        options.enable_cpu_mem_arena = False  # it would keep the memory of the largest image for good
        if providers[0] == PROVIDERS["cpu"]:
            options.enable_mem_pattern = False  # DirectML refuses it
        self._session: Any = onnxruntime.InferenceSession(to_onnx(network), options, providers=providers)
        wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if self._session.get_providers()[0] != wanted:
            raise SettingsError(
                f"ONNX Runtime could not start {wanted}; install the build for this device, or use another backend."
            )
        self._device = device
        self._bound = torch.device("cpu") if device.type == "mps" else device
        self._logits = Logits(network)

    @classmethod
    def available(cls) -> str | None:
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        return f"the Python package '{missing[0]}' is missing; install mskd[export]." if missing else None

    def __call__(self, image: Tensor) -> Tensor:
        image = image.to(self._bound, torch.float32).contiguous()
        logits = self._logits.empty(image)
        binding = self._session.io_binding()
        place = (self._bound.type, self._bound.index or 0, np.float32)
        binding.bind_input("image", *place, tuple(image.shape), image.data_ptr())
        binding.bind_output("logits", *place, tuple(logits.shape), logits.data_ptr())
        if self._bound.type == "cuda":
            torch.cuda.current_stream(self._bound).synchronize()  # it computes on a stream of its own
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return logits.to(self._device)


def choose_providers(device: torch.device, available: Sequence[str]) -> list[Any]:
    """The providers to ask for, the best first; the processor's comes last and is always there.

    Raises:
        SettingsError: this build of ONNX Runtime does not know the device.
    """
    name = PROVIDERS[device.type]
    if name in available:
        best: Any = (name, {"device_id": device.index or 0}) if device.type == "cuda" else name
        return [best, "CPUExecutionProvider"]
    if device.type != "cpu":
        raise SettingsError(
            f"This build of ONNX Runtime has no {name}; install the one for {device.type}, or use another backend."
        )
    return ["CPUExecutionProvider"]
