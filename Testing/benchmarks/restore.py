"""From logits to labels on the image's grid: time, memory and labels beside nnU-Net's resampling and argmax.

    python Testing/benchmarks/restore.py --output Testing/benchmarks/results/speed/restore.json

Needs nnunetv2. The logits are a phantom: ellipsoids with soft borders and noise in 1.5 mm voxels, brought to voxels of
1 x 0.78 x 0.78 mm. Each measurement is a process of its own, so that its peak memory is its own, and each round takes
every kind once, in turning order. ``ratio`` is the median over rounds of a kind's seconds over ours within a round;
``beyond_mb`` is what a process held at its peak beyond what it held with the logits loaded. ``nnunet_tuned`` has the
allocator settings of the engine, ``uncertainty`` is ``mskd`` with the entropy of every voxel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mskd.events import never
from mskd.files import write_text
from mskd.image import Geometry
from mskd.inference import Grid, make_grid
from mskd.inference.environment import device_name, keep_freed_memory, versions
from mskd.inference.memory import peak_bytes
from mskd.inference.restore import restore
from mskd.inference.uncertainty import Confidence
from mskd.inference.windows import SLAB_SLICES
from mskd.spec import Normalization

SPACING, PREPARED = (1.0, 0.78125, 0.78125), (1.5, 1.5, 1.5)
KINDS = ("mskd", "uncertainty", "nnunet", "nnunet_tuned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--classes", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    grid = grid_of(tuple(options.shape))
    if options.child is not None:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure_one(options.child[0], Path(options.child[1]), grid, options.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "logits.npy", phantom(grid.geometry.shape, options.classes).numpy())
        found = measure(options, Path(folder))
    result = {
        **found,
        "voxels": list(grid.source.shape),
        "prepared": list(grid.geometry.shape),
        "classes": options.classes,
        "rounds": options.rounds,
        "threads": options.threads,
        "machine": f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores",
        "versions": {**versions(), "nnunetv2": _version("nnunetv2")},
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if options.output is not None:
        write_text(options.output, text)


def grid_of(shape: tuple[int, ...]) -> Grid:
    spec = SimpleNamespace(spacing=PREPARED, orientation="LPS", normalization=Normalization(name="none"))
    return make_grid(Geometry((shape[0], shape[1], shape[2]), SPACING), spec)


def phantom(shape: tuple[int, int, int], classes: int) -> Tensor:
    """Logits ``[K, z, y, x]``: one ellipsoid a class, background 12 above them elsewhere."""
    random = torch.Generator().manual_seed(0)
    axes = [
        torch.linspace(-1, 1, side).reshape([-1 if own == i else 1 for i in range(3)]) for own, side in enumerate(shape)
    ]
    logits = torch.empty(classes, *shape)
    for label, one in enumerate(logits):
        coarse = torch.randn(1, 1, *(max(2, side // 8) for side in shape), generator=random)
        one[:] = 0.5 * F.interpolate(coarse, size=shape, mode="trilinear")[0, 0]
        one += 0.3 * torch.randn(shape, generator=random)
        if label:
            centre = torch.rand(3, generator=random) * 1.2 - 0.6
            radius = torch.rand(3, generator=random) * 0.25 + 0.12
            places = zip(axes, centre.tolist(), radius.tolist(), strict=True)
            distance = sum(((axis - middle) / half) ** 2 for axis, middle, half in places)
            one += (8 * (1 - torch.as_tensor(distance).sqrt())).clamp(-12, 8)
    return logits


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run every kind in every round, compare the labels, and sum up."""
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for turn in range(options.rounds):
        at = turn % len(KINDS)
        for kind in (*KINDS[at:], *KINDS[:at]):
            command = [sys.executable, __file__, "--child", kind, str(folder), "--threads", str(options.threads)]
            command += ["--shape", *map(str, options.shape)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding="utf-8")
            runs[kind].append(json.loads(done.stdout))
    labels = {kind: np.load(folder / f"{kind}.npy") for kind in KINDS}
    ratio = {
        kind: statistics.median(
            peer["seconds"] / own["seconds"] for peer, own in zip(runs[kind], runs["mskd"], strict=True)
        )
        for kind in KINDS
    }
    return {
        "median": {
            kind: {name: round(statistics.median(run[name] for run in found), 3) for name in found[0]}
            for kind, found in runs.items()
        },
        "ratio": {kind: round(value, 2) for kind, value in ratio.items()},
        "equal": {kind: float((labels[kind] == labels["nnunet"]).mean()) for kind in KINDS},
        "foreground": float((labels["nnunet"] > 0).mean()),
    }


def measure_one(kind: str, folder: Path, grid: Grid, threads: int) -> dict[str, float]:
    """Seconds, processor seconds and megabytes of one way; writes its labels."""
    if kind != "nnunet":
        keep_freed_memory()
    convert = _ours(grid, kind == "uncertainty") if kind in ("mskd", "uncertainty") else _theirs(grid, threads)
    logits = np.load(folder / "logits.npy")
    before, wall, processor = _peak_mb(), time.perf_counter(), time.process_time()
    labels = convert(logits)
    taken = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    peak = _peak_mb()
    np.save(folder / f"{kind}.npy", labels)
    return {**taken, "peak_mb": peak, "beyond_mb": peak - before}


def _ours(grid: Grid, uncertainty: bool) -> Callable[[np.ndarray], np.ndarray]:
    def convert(logits: np.ndarray) -> np.ndarray:
        return restore(
            torch.from_numpy(logits).split(SLAB_SLICES, dim=1),
            grid,
            entropy=np.zeros(grid.source.shape, np.uint8) if uncertainty else None,
            confidence=Confidence(len(logits)),
            on_slab=lambda done, total: None,
            cancelled=never,
        ).array

    return convert


def _theirs(grid: Grid, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """What ``convert_predicted_logits_to_segmentation_with_correct_shape`` does with the default plans."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    def convert(logits: np.ndarray) -> np.ndarray:
        manager = LabelManager({"background": 0, **{str(i): i for i in range(1, len(logits))}}, None)
        resampled = resample_data_or_seg_to_shape(
            torch.from_numpy(logits),
            list(grid.source.shape),
            list(grid.geometry.spacing),
            list(SPACING),
            is_seg=False,
            order=1,
            order_z=0,
            force_separate_z=None,
        )
        return np.asarray(manager.convert_logits_to_segmentation(resampled)).astype(np.uint8)

    return convert


def _peak_mb() -> float:
    return (peak_bytes(torch.device("cpu")) or 0) / 1e6


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    main()
