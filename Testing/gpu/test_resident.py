"""The image goes to the GPU once and only labels come back: everything between stays there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mskd.inference import Engine

SMALL = 1 << 20
"""Bytes of the scalars and index tensors that may cross."""


def copied(trace: Path) -> dict[str, int]:
    """Bytes by direction of the copies in a profiler's trace: ``HtoD`` and ``DtoH``."""
    found = {"HtoD": 0, "DtoH": 0}
    for event in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]:
        for direction in found:
            if event.get("cat") == "gpu_memcpy" and direction in event["name"]:
                found[direction] += int(event["args"]["bytes"])
    return found


def test_only_labels_come_back(student: Any, phantom: Any, tmp_path: Path) -> None:
    engine = Engine(student, "cuda")
    engine.run(phantom)  # weights go over, kernels are chosen
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        result = engine.run(phantom)
        torch.cuda.synchronize()
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    bytes_copied = copied(tmp_path / "trace.json")
    assert bytes_copied["DtoH"] >= result.labels.array.nbytes, "the trace shows no labels coming back"
    assert bytes_copied["DtoH"] <= result.labels.array.nbytes + SMALL
    assert bytes_copied["HtoD"] <= phantom.array.nbytes + SMALL
