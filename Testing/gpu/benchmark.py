"""Latency on a GPU, from image file to labels file, model loaded: seconds by phase and the peak memory of the device.

    python Testing/gpu/benchmark.py chest_ct_1mm.nii.gz --output Testing/benchmarks/results/speed/gpu.json

Beside the engine, MONAI's transforms and sliding window with the same student, where ``monai`` is installed. The first
run, which loads libraries and lets them choose kernels, is reported by itself; the others, in turn with MONAI's, give
the medians. ``equal_to_cpu`` is the share of voxels that get the label they get on the processor in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS.parents[1] / "Training"), str(BENCHMARKS)]

from peers.clock import Clock  # noqa: E402
from peers.machine import machine, usable_cores, versions  # noqa: E402
from peers.students import STUDENTS, make_students  # noqa: E402

from mskd.image import read_image, write_labels  # noqa: E402
from mskd.inference import Engine, keep_freed_memory  # noqa: E402
from mskd.package import open_package  # noqa: E402

AIM_SECONDS = 1.0


def once(engine: Engine, image: Path, output: Path) -> dict[str, Any]:
    """One run from file to file."""
    clock = Clock()
    torch.cuda.reset_peak_memory_stats()
    with clock.phase("read"):
        source = read_image(image)
    with clock.phase("engine"):
        result = engine.run(source)
        torch.cuda.synchronize()
    with clock.phase("write"):
        write_labels(output, result.labels, engine.manifest.labels, overwrite=True)
    phases = {name: value / 1000 for name, value in result.report["milliseconds"].items() if name != "total"}
    seconds = {**clock.seconds, **{f"engine: {name}": value for name, value in phases.items()}}
    return {
        "seconds": {**seconds, "total": sum(clock.seconds.values())},
        "peak_mb": torch.cuda.max_memory_allocated() / 1e6,
        "plan": result.report["plan"],
        "backend": result.report["backend"],
        "precision": result.report["precision"],
        "measured_ms": result.report["measured_ms"],
    }


def monai_once(network: Any, manifest: Any, image: Path, output: Path) -> dict[str, Any]:
    """One run of MONAI, the network in half precision."""
    from peers.monai_window import segment

    torch.cuda.reset_peak_memory_stats()
    clock = segment(network, manifest, image, output, device="cuda")
    seconds = {**clock.seconds, "total": sum(clock.seconds.values())}
    return {"seconds": seconds, "peak_mb": torch.cuda.max_memory_allocated() / 1e6}


def medians(first: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    names = others[0]["seconds"]
    return {
        "first_total": round(first["seconds"]["total"], 4),
        "seconds": {
            name: round(statistics.median(run["seconds"].get(name, 0.0) for run in others), 4) for name in names
        },
        "peak_mb": round(max(run["peak_mb"] for run in others), 1),
    }


def measure(path: Path, image: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """The engine and MONAI on one image, turn by turn."""
    package, output = open_package(path), folder / "labels.nii.gz"
    engine = Engine(package, "cuda")
    contenders = {"mskd": lambda: once(engine, image, output)}
    if find_spec("monai") is not None:
        from peers.monai_window import turned

        network = turned(package.load_network().eval()).cuda()
        contenders["monai"] = lambda: monai_once(network, package.manifest, image, output)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            runs[name].append(run())
            torch.cuda.empty_cache()
    found = {name: medians(own[0], own[1:]) for name, own in runs.items()}
    last = runs["mskd"][-1]
    source = read_image(image)
    ours, theirs = (one.run(source).labels.array for one in (engine, Engine(package, "cpu", backend="torch_eager")))
    found["mskd"] |= {name: last[name] for name in ("plan", "backend", "precision", "measured_ms")}
    found["mskd"]["under_aim"] = found["mskd"]["seconds"]["total"] < AIM_SECONDS
    found["mskd"]["equal_to_cpu"] = round(float(np.mean(ours == theirs)), 6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device")
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_students(read_image(options.image), folder, patch=128, seed=0)
        found: dict[str, Any] = {
            "device": torch.cuda.get_device_name(),
            "machine": machine(usable_cores()),
            "versions": {**versions(), "cuda": torch.version.cuda},
            "rounds": options.rounds,
            "aim_seconds": AIM_SECONDS,
            "students": {name: measure(folder / name, options.image, folder, options.rounds) for name in STUDENTS},
        }
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
