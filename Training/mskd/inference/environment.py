"""Settings of the process that make a CPU fast, and what can be said about it."""

from __future__ import annotations

import ctypes
import platform
import sys

import numpy as np
import SimpleITK as sitk
import torch

import mskd
from mskd.errors import SettingsError

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

DEVICES = ("auto", "cpu", "cuda", "mps")


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of returning them to the system.

    Otherwise each operation of a network pays for every page of its result again: three times slower. The same as
    MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ in the environment, but for a process that already runs.

    Returns:
        Whether it was done; False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        library = ctypes.CDLL(None)
        return bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, -1))
    except (OSError, AttributeError):
        return False


def available_devices() -> list[str]:
    """Device types that work here; the CPU always does."""
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def choose_device(name: str) -> torch.device:
    """The device meant by ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; ``auto`` is CUDA, or else the CPU.

    Raises:
        SettingsError: unknown, or not there.
    """
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise SettingsError(f"There is no device '{name}'; choose one of {', '.join(DEVICES)}.")
    devices = available_devices()
    if kind == "auto":
        return torch.device("cuda" if "cuda" in devices else "cpu")
    index = name.partition(":")[2]
    wrong_index = index and not (index.isdigit() and kind == "cuda" and int(index) < torch.cuda.device_count())
    if kind not in devices or wrong_index:
        raise SettingsError(
            f"The device '{name}' is not available here (there is {', '.join(devices)}); choose one of those or auto."
        )
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of the processor where the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of everything a result depends on."""
    return {
        "mskd": mskd.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "SimpleITK": sitk.Version_VersionString(),
    }
