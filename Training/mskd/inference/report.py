"""What a run says of itself, as plain data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mskd.image.geometry import LabelMap
from mskd.inference.environment import device_name, versions
from mskd.inference.grid import Grid
from mskd.inference.memory import peak_bytes
from mskd.inference.region import Region
from mskd.inference.runners import Runner
from mskd.inference.timer import Timer
from mskd.inference.windows import Plan
from mskd.package import Package

SLICES = 16
"""Slices whose labels are counted at a time: fewer would keep many threads waiting for each other."""


def make_report(
    package: Package,
    labels: LabelMap,
    grid: Grid,
    region: Region | None,
    plan: Plan,
    runner: Runner,
    steps: list[str],
    timer: Timer,
) -> dict[str, Any]:
    """Model, versions, device, times, memory, plan and volumes of a finished run."""
    manifest, geometry = package.manifest, labels.geometry
    # PyTorch counts bytes, where NumPy would make 64-bit copies of them.
    seen = grid.view(labels.array)
    parts = (seen[first : first + SLICES] for first in range(0, len(seen), SLICES))
    flat = (torch.from_numpy(np.array(part, order="C")).view(-1) for part in parts)
    counts = torch.stack([torch.bincount(part, minlength=manifest.classes) for part in flat]).sum(0).tolist()
    peak = peak_bytes(runner.device)
    return {
        "model": {"name": manifest.name, "version": manifest.version, "fingerprint": package.fingerprint},
        "versions": versions(),
        "device": str(runner.device),
        "device_name": device_name(runner.device),
        "backend": runner.backend,
        "precision": runner.precision,
        "measured_ms": runner.milliseconds,
        "threads": torch.get_num_threads(),
        "milliseconds": timer.milliseconds(),
        "peak_memory_mb": None if peak is None else round(peak / 1e6, 1),
        "plan": {
            "voxels": list(plan.shape),
            "spacing": list(grid.geometry.spacing),
            "window": list(plan.window),
            "windows": len(plan.starts),
            "batch": plan.batch,
            "computed_voxels": plan.voxels,
            "whole": plan.whole,
            "region": region is not None,
        },
        "memory_steps": list(steps),
        "image": {"voxels": list(geometry.shape), "spacing": list(geometry.spacing)},
        "volumes_ml": {label.name: counts[label.value] * geometry.voxel_volume / 1000 for label in manifest.labels},
    }


def in_words(plan: Plan) -> str:
    """A plan as a part of a sentence."""
    size = " x ".join(map(str, plan.window))
    return f"the whole volume ({size})" if plan.whole else f"{len(plan.starts)} windows of {size}"


def in_gigabytes(count: float) -> str:
    """Bytes for a person."""
    return f"{count / 1e9:.2f} GB"
