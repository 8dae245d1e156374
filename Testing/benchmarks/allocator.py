"""What the memory allocator, huge pages and the number of threads do to a network on a CPU.

    python Testing/benchmarks/allocator.py --output Testing/benchmarks/results/speed/allocator.json
    ... --preload jemalloc=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2     to compare another allocator

A separable light U-Net runs over a whole volume; every setting has a process of its own, in turns. ``first`` is the
first run of the process, which is all that a single image sees; ``wall`` and ``processor`` are of later ones.
``faults`` are pages that the system had to provide during one of those, ``idle_mb`` is what the process holds after it
gave memory back.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KEEP = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""PyTorch asks for them, for its larger tensors."""
SETTINGS: dict[str, dict[str, str]] = {
    "as shipped": {},
    "mallopt (what mskd does)": {"TUNE": "1"},
    "mallopt and huge pages": {"TUNE": "1", **HUGE_PAGES},
    "environment": KEEP,
    "environment and top pad": {**KEEP, "MALLOC_TOP_PAD_": "268435456"},
    "environment and glibc.malloc.hugetlb": {**KEEP, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "huge pages alone": HUGE_PAGES,
}
OURS = "mallopt (what mskd does)"
WARM_UP = 2
TUNED_PRELOADS = {
    "jemalloc": {"MALLOC_CONF": "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="measured runs a process")
    parser.add_argument("--side", type=int, default=112, help="voxels along each axis of the volume")
    parser.add_argument("--threads", type=int, nargs="*", help="numbers to compare (default: 1, ours, twice ours)")
    parser.add_argument("--preload", action="append", default=[], metavar="NAME=LIBRARY")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(options.side, options.runs)))
        return
    result = compare(options)
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Every setting in every round, each in a new process."""
    from mskd.inference.environment import usable_cores, versions

    cores = usable_cores()
    kinds = dict(SETTINGS)
    for name, library in (entry.split("=", 1) for entry in options.preload):
        kinds[name] = {"LD_PRELOAD": library, **TUNED_PRELOADS.get(name, {})}
    counts = options.threads if options.threads is not None else sorted({1, cores, 2 * cores})
    kinds |= {f"{count} threads": {"TUNE": "1", "OMP_NUM_THREADS": str(count)} for count in counts}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    names = list(kinds)
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(child(kinds[name], options))
    medians = {
        name: {key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]}
        for name, rows in found.items()
    }
    return {
        "what": "one forward pass of a separable light U-Net over a whole volume; medians over processes of medians",
        "settings": {name: {**row, **_ratio(row, medians[OURS])} for name, row in medians.items()},
        "voxels": [options.side] * 3,
        "rounds": options.rounds,
        "runs": options.runs,
        "usable_cores": cores,
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "machine": f"{_processor()}, {os.cpu_count()} logical processors, {' '.join(platform.libc_ver())}",
        "versions": versions(),
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }


def _ratio(row: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    keys = ("first", "wall", "processor")
    return {f"{key}_to_ours": round(row[f"{key}_seconds"] / ours[f"{key}_seconds"], 3) for key in keys}


def child(setting: dict[str, str], options: argparse.Namespace) -> dict[str, float]:
    """The numbers that a process with this environment measures."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "THP_"))
    }
    command = [sys.executable, __file__, "--child", "--side", str(options.side), "--runs", str(options.runs)]
    done = subprocess.run(command, env={**inherited, **setting}, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"{setting}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(side: int, runs: int) -> dict[str, float]:
    """Measure in this process, whose environment decides."""
    import resource

    import torch

    from mskd.inference.backends.torch_eager import TorchEager
    from mskd.inference.environment import give_back_memory, keep_freed_memory, use_cores
    from mskd.inference.memory import peak_bytes, resident_bytes
    from mskd.networks import build_network
    from mskd.spec import NetworkSpec

    if os.environ.get("TUNE"):
        keep_freed_memory()
    use_cores()
    torch.manual_seed(0)
    arguments = {"dim": 3, "in_channels": 1, "classes": 15, "channels": [16, 32, 64, 96], "separable": True}
    network = TorchEager(build_network(NetworkSpec(name="light_unet", arguments=arguments)), torch.device("cpu"))
    image = torch.randn(1, 1, side, side, side)
    rows = []
    for _ in range(WARM_UP + runs):
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        wall, processor = time.perf_counter(), time.process_time()
        network(image)
        spent = (time.perf_counter() - wall, time.process_time() - processor)
        rows.append((*spent, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults))
    wall, processor, faults = (statistics.median(column) for column in zip(*rows[WARM_UP:], strict=True))
    peak = (peak_bytes(torch.device("cpu")) or 0) / 1e6
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        give_back_memory()
    return {
        "first_seconds": rows[0][0],
        "wall_seconds": wall,
        "processor_seconds": processor,
        "faults": faults,
        "peak_mb": peak,
        "idle_mb": (resident_bytes() or 0) / 1e6,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    lines = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
