"""Estimates of memory, and what counts as running out of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mskd.errors import SettingsError
from mskd.inference import memory
from mskd.inference.memory import forward_bytes, free_bytes, is_out_of_memory, parse_memory, peak_bytes, reusable_bytes
from mskd.networks import build_network
from mskd.spec import NetworkSpec


def sketch(dim: int = 3, channels: tuple[int, ...] = (8, 16)) -> Any:
    arguments = {"dim": dim, "in_channels": 1, "classes": 3, "channels": list(channels)}
    with torch.device("meta"):
        return build_network(NetworkSpec(name="light_unet", arguments=arguments)).eval()


@pytest.mark.parametrize("dim", [2, 3])
def test_estimate_follows_the_window_and_the_width(dim: int) -> None:
    small, large = (forward_bytes(sketch(dim), 1, (side, 64, 64)) for side in (16, 32))
    assert large == pytest.approx(2 * small, rel=0.05)
    wide = forward_bytes(sketch(dim, (16, 32)), 1, (16, 64, 64))
    assert wide == pytest.approx(2 * small, rel=0.2)


def test_an_estimate_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = sketch()
    first = [forward_bytes(network, 1, (side, 16, 16)) for side in (16, 32)]
    monkeypatch.setattr(network, "forward", None)
    assert [forward_bytes(network, 1, (side, 16, 16)) for side in (16, 32)] == first
    assert memory._ESTIMATES[network].keys() == {(1, 1, 16, 16, 16), (1, 1, 32, 16, 16)}


def test_estimate_covers_the_largest_stage() -> None:
    # The last decoder stage holds its input (2 x 8 channels) and its output (8) at full size.
    voxels = 4 * 32**3
    assert forward_bytes(sketch(), 1, (32, 32, 32)) > 24 * voxels


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("Sizes of tensors must match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(fault: Exception, expected: bool) -> None:
    assert is_out_of_memory(fault) is expected


def test_a_real_refusal_is_recognised() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_free_memory_obeys_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "max").write_text("1000000")
    (tmp_path / "now").write_text("400000")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", ((str(tmp_path / "max"), str(tmp_path / "now")),))
    monkeypatch.setattr(memory, "reusable_bytes", lambda: 0)
    assert free_bytes(torch.device("cpu")) == int(0.8 * 600_000)
    (tmp_path / "max").write_text("max")
    assert free_bytes(torch.device("cpu")) > 1e6


def test_counters_are_plausible() -> None:
    assert reusable_bytes() >= 0
    peak = peak_bytes(torch.device("cpu"))
    assert peak is None or 1e7 < peak < 1e12


def test_the_peak_is_that_of_the_process_alone(root: Path) -> None:
    """And not that of the one that started it, which Slicer's would be for the worker."""
    held = np.ones(1 << 27)  # 1 GB
    script = "import torch; from mskd.inference.memory import peak_bytes; print(peak_bytes(torch.device('cpu')))"
    environment = {**os.environ, "PYTHONPATH": str(root / "Training")}
    peak = int(subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True).stdout)
    assert peak < held.nbytes


@pytest.mark.parametrize(("text", "count"), [("4GB", 4_000_000_000), (" 800 mb", 800_000_000), ("1.5TB", 1.5e12)])
def test_sizes_in_words(text: str, count: int) -> None:
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "4", "0GB", "-1GB", "4 GiB", "four GB", "nanGB"])
def test_sizes_nobody_can_mean(text: str) -> None:
    with pytest.raises(SettingsError, match="like 4GB"):
        parse_memory(text)
