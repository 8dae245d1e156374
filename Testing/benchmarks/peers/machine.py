"""What the numbers were measured on, without importing anything heavy."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "SimpleITK", "nnunetv2", "monai", "openvino", "onnxruntime", "scikit-image", "scipy")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
"""What decides how fast a processor multiplies."""


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, memory, system."""
    processor = _cpuinfo()
    flags = processor.get("flags", "").split()
    kernel = ".".join(platform.release().split(".")[:2])
    return {
        "processor": processor.get("model name", platform.processor() or platform.machine()),
        "family_model": f"{processor.get('cpu family', '?')}/{processor.get('model', '?')}",
        "cores": os.cpu_count(),
        "threads": threads,
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": f"{platform.system()} {kernel}, {' '.join(platform.libc_ver())}",
    }


def versions() -> dict[str, str | None]:
    """Of Python and of whatever takes part; None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def public(words: list[str]) -> list[str]:
    """A command's words as others would type them: paths by their last part alone."""
    return [Path(word).name if "/" in word else word for word in words]


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":") for line in lines if ":" in line]
    return {name.strip(): value.strip() for name, _, value in pairs}
