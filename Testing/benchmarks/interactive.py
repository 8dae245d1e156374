"""How long a warm worker takes for a small region of a large volume: from the request's line to the result's.

    python Testing/benchmarks/interactive.py --output Testing/benchmarks/results/speed/interactive.json

The volume is noise, int16; the region has the size of a hippocampus; the model is the bundled one. ``phases`` are the
engine's own, ``around it`` is what the worker adds: reading, writing and its messages. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PLACE = {"spacing": [1.0, 1.0, 1.0], "origin": [0.0, 0.0, 0.0], "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
CORNER, SIZE = (-150.0, -160.0, 100.0), (35.0, 50.0, 35.0)
"""RAS mm."""
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model", default="hippocampus-mr")
    parser.add_argument("--shape", type=int, nargs=3, default=[275, 512, 512], metavar=("Z", "Y", "X"))
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options)
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Median milliseconds of the runs after the first few."""
    voxels = np.random.default_rng(0).integers(0, 1000, options.shape).astype(np.int16)
    np.save(folder / "in.npy", voxels)
    request = {
        "type": "run",
        "model": options.model,
        "device": "cpu",
        "input": str(folder / "in.npy"),
        "geometry": PLACE,
        "output": str(folder / "out.npy"),
        "region": {"minimum": CORNER, "maximum": [low + side for low, side in zip(CORNER, SIZE, strict=True)]},
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Training")}
    command = [sys.executable, "-m", "mskd.inference.worker"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        versions = ask(worker, {"type": "hello"})["versions"]
        found = [timed(worker, {**request, "id": index}) for index in range(WARM_UP + options.runs)][WARM_UP:]
    finally:
        worker.kill()
        worker.wait()
    totals = [total for total, _ in found]
    phases = {
        name: round(statistics.median(report["milliseconds"][name] for _, report in found), 2)
        for name in found[0][1]["milliseconds"]
    }
    return {
        "what": "milliseconds from a request's line to its result's, the worker warm; medians",
        "milliseconds": round(statistics.median(totals), 1),
        "slowest": round(max(totals), 1),
        "phases": phases,
        "around it": round(statistics.median(total - report["milliseconds"]["total"] for total, report in found), 1),
        "volume": options.shape,
        "network_sees": found[0][1]["plan"]["voxels"],
        "model": options.model,
        "runs": options.runs,
        "threads": found[0][1]["threads"],
        "machine": f"{platform.machine()}, {os.cpu_count()} logical processors",
        "versions": versions,
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }


def timed(worker: subprocess.Popen, request: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Milliseconds of a run, and its report."""
    start = time.perf_counter()
    answer = ask(worker, request)
    return 1000 * (time.perf_counter() - start), answer["report"]


def ask(worker: subprocess.Popen, request: dict[str, Any]) -> dict[str, Any]:
    """The answer that is no event."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(request).encode() + b"\n")
    worker.stdin.flush()
    while (message := json.loads(worker.stdout.readline()))["type"] == "event":
        continue
    if message["type"] == "error":
        raise SystemExit(message["message"])
    return message


if __name__ == "__main__":
    main()
