"""How much memory a window needs, how much there is, and what an out-of-memory error looks like."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mskd.errors import SettingsError
from mskd.networks import SegmentationNetwork

USABLE = 0.8
"""Share of the free memory that is planned with."""

WORKSPACE = 1.5
"""What convolutions need beside their inputs and outputs, as a factor."""

UNKNOWN_MEMORY = 4 << 30
MOST_ESTIMATES = 64
_ESTIMATES: WeakKeyDictionary[SegmentationNetwork, dict[tuple[int, ...], int]] = WeakKeyDictionary()
"""By network and shape: an estimate takes longer than a small region takes to segment."""

CGROUP_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def parse_memory(text: str) -> int:
    """Bytes meant by ``4GB`` or ``800 MB``.

    Raises:
        SettingsError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]B)", text.strip(), flags=re.IGNORECASE)
    if match is None or not float(match[1]):
        raise SettingsError(f"The memory is '{text}'; give a number above 0 and a unit, like 4GB or 800MB.")
    return int(float(match[1]) * UNITS[match[2].upper()])


class _Peak(TorchDispatchMode):
    """Adds up the storages alive after each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live: dict[StorageWeakRef, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or PyTorch would import its compiler here, only to keep out of its way

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self._live[StorageWeakRef(storage)] = storage.nbytes()
        self._live = {storage: size for storage, size in self._live.items() if not storage.expired()}
        self.peak = max(self.peak, sum(self._live.values()))
        return result


def forward_bytes(network: SegmentationNetwork, channels: int, window: tuple[int, int, int]) -> int:
    """Estimated peak memory of one forward pass, input and logits included.

    Args:
        network: On the meta device, so that nothing is computed or allocated.
        channels: Input channels.
        window: Voxels (z, y, x); the z slices are a batch for a 2D network.
    """
    known = _ESTIMATES.setdefault(network, {})
    shape = (window[0], channels, *window[1:]) if network.dim == 2 else (1, channels, *window)
    if shape not in known:
        with torch.inference_mode(), _Peak() as counted:
            network(torch.zeros(shape, device="meta"))
        if len(known) >= MOST_ESTIMATES:
            known.pop(next(iter(known)))
        known[shape] = int(WORKSPACE * counted.peak)
    return known[shape]


def free_bytes(device: torch.device) -> int:
    """Memory that may be planned with on a device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(USABLE * (torch.cuda.mem_get_info(device)[0] + kept))
    return int(USABLE * (min([_system_free(), *_cgroup_free()]) + reusable_bytes()))


class _MallInfo(ctypes.Structure):
    """``struct mallinfo2`` of <malloc.h>."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    ]


def reusable_bytes() -> int:
    """Freed memory that this process kept (see ``keep_freed_memory``): it counts as used, and is there all the same.

    What was freed without ever having been touched is the system's still, and does not count.
    """
    try:
        report = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):  # not glibc 2.33 or later
        return 0
    report.restype = _MallInfo
    heap = report()
    resident = _status_bytes("RssAnon") or heap.arena
    return max(0, min(heap.fordblks, resident - heap.uordblks))


def _status_bytes(field: str) -> int | None:
    """What Linux says of this process in /proc; None elsewhere."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    told = re.search(rf"^{field}:\s*(\d+) kB", status, flags=re.MULTILINE)
    return 1024 * int(told[1]) if told is not None else None


def held_bytes(device: torch.device) -> int:
    """Memory that this process has in use on a device (0 on a CPU where the system does not say)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return max(0, pages * os.sysconf("SC_PAGE_SIZE") - reusable_bytes())


def address_space_is_limited() -> bool:
    """Whether memory counts before it is used, as under ``ulimit -v``."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an exception means that memory ran out, on any device."""
    if isinstance(fault, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(fault).lower()
    return isinstance(fault, RuntimeError) and any(
        sign in text for sign in ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
    )


def peak_bytes(device: torch.device) -> int | None:
    """Largest memory held so far: of the device, or of this process on a CPU (None where the system does not say)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    told = _status_bytes("VmHWM")
    if told is not None:  # Linux, where ru_maxrss begins with what the parent process had held
        return told
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident_bytes() -> int | None:
    """Memory of this process that is in use or kept right now; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError):
        return None


def _system_free() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return UNKNOWN_MEMORY


def _cgroup_free() -> list[int]:
    for limit, used in CGROUP_LIMITS:
        try:
            return [max(0, int(Path(limit).read_text(encoding="utf-8")) - int(Path(used).read_text(encoding="utf-8")))]
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return []
