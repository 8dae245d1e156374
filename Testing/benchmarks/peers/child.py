"""One child process, measured from outside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parents[1]
TUNED = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
"""glibc keeps freed memory. The engine sets the like by itself; a tuned peer gets it from here."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: wall-clock seconds, largest resident memory, exit code (negative: a signal)."""

    seconds: float
    peak_mb: float
    code: int


def environment(threads: int, cache: Path, *, tuned: bool = False) -> dict[str, str]:
    """What a child sees: this checkout's code, the number of threads, and glibc's settings only where wanted."""
    foreign = ("MALLOC_", "GLIBC_", "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "Training"), str(BENCHMARKS)]),
        "OMP_NUM_THREADS": str(threads),
        "MSKD_CACHE": str(cache),
        **(TUNED if tuned else {}),
    }


def run_child(command: Sequence[str], variables: dict[str, str], log: Path) -> Ended:
    """Run ``command``; what it prints goes to ``log``."""
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(time.perf_counter() - start, usage.ru_maxrss / 1024, process.returncode)


def last_words(log: Path, lines: int = 5) -> str:
    """The end of what a child printed."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
