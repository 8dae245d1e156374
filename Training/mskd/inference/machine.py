"""What a measurement of speed depends on, and where the answers are kept between runs."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mskd.inference.environment import device_name

RUNTIMES = ("torch", "openvino", "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "triton")
VARIABLE = "MSKD_CACHE"


def cache_folder() -> Path | None:
    """The user's folder for what can be measured again; ``MSKD_CACHE`` moves it, or is ``off``: then None."""
    named = os.environ.get(VARIABLE, "")
    if named:
        return None if named.lower() == "off" else Path(named)
    try:
        home = Path.home()
    except RuntimeError:  # a container without a user
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "mskd"
    variable, default = ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", ".cache")
    return Path(os.environ.get(variable) or home / default) / "mskd"


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, threads, device and versions: where one of them differs, another backend may be the fastest."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": device_name(device),
        "versions": {name: _version(name) for name in RUNTIMES},
    }


def processor() -> str:
    """The model of the processor, as exactly as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def computes_quickly(precision: str, device: torch.device) -> bool:
    """Whether the device has instructions for numbers of that kind; without them they are emulated, 50 times slower."""
    if precision == "float32":
        return True
    if device.type == "cuda":
        return precision == "float16" or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or precision != "bfloat16":
        return False
    # The names of PyTorch for these two differ from version to version.
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in known)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
