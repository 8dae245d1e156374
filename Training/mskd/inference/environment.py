"""Settings of the process that make a CPU fast, and what can be said about it."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

import mskd
from mskd.errors import SettingsError

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
QUOTAS = (
    ("/sys/fs/cgroup/cpu.max", ""),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)

FEWEST_THREADS = 2
"""With a single one, PyTorch computes 1x1 convolutions in another way, and a separable network takes twice as long."""

_keeps = False

DEVICES = ("auto", "cpu", "cuda", "mps")


def tune_process() -> None:
    """Make this process fast on a CPU: memory that is kept, a thread for each core it may use."""
    keep_freed_memory()
    use_cores()


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of returning them to the system.

    Otherwise each operation of a network pays for every page of its result again: half of its time. It is the same as
    MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ in the environment, but for a process that already runs. Huge
    pages are not asked for, by NumPy neither: they save later runs little, and a first run waits longer for them than
    for small ones. Testing/benchmarks/allocator.py compares.

    Returns:
        Whether freed blocks are kept; False where the C library is not glibc.
    """
    global _keeps
    if platform.libc_ver()[0] != "glibc":
        return False
    if "NUMPY_MADVISE_HUGEPAGE" not in os.environ:
        numpy_core = "numpy.core" if np.__version__.startswith("1.") else "numpy._core"
        with suppress(ImportError, AttributeError):  # once NumPy is imported, no public way leads there
            import_module(f"{numpy_core}.multiarray")._set_madvise_hugepage(False)
    try:
        library = ctypes.CDLL(None)
        _keeps = bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, -1))
    except (OSError, AttributeError):
        return False
    return _keeps


def keeps_freed_memory() -> bool:
    """Whether :func:`keep_freed_memory` was called in this process, and could do it."""
    return _keeps


def give_back_memory() -> None:
    """Return what was kept to the system and the GPU; the next run pays for its pages once more."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def use_cores() -> None:
    """A thread for each core there is (see ``usable_cores``), unless OMP_NUM_THREADS says otherwise."""
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(FEWEST_THREADS, usable_cores()))


def usable_cores() -> int:
    """Physical cores that this process may run on, within the share of them that its container grants.

    Two threads on one core share its vector units and only disturb one another; threads beyond a container's share
    are stopped in the middle of an operation while the others wait for them.
    """
    if not hasattr(os, "sched_getaffinity"):
        return max(1, torch.get_num_threads())
    allowed = os.sched_getaffinity(0)
    cores = len({_text(SIBLINGS.format(processor)) or str(processor) for processor in allowed})
    return max(1, min([cores, *_quota()]))


def _quota() -> list[int]:
    """Processors' worth of time that the container grants, rounded up; empty without a limit."""
    for quota, period in QUOTAS:
        try:
            numbers = _text(quota).split() + (_text(period).split() if period else [])
            share = int(numbers[0]) / int(numbers[1])
        except (ValueError, IndexError, ZeroDivisionError):  # no such group, or "max"
            continue
        if share > 0:
            return [math.ceil(share)]
    return []


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


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
