"""A training that is killed, or asked to stop by the system, goes on to the very weights of an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mskd.package import open_package

TIMES = {"seconds_per_step", "loader_wait"}


@pytest.mark.parametrize(("ending", "workers", "code"), [(signal.SIGKILL, 0, -signal.SIGKILL), (signal.SIGTERM, 2, 75)])
def test_a_stopped_run_resumes_bit_for_bit(
    root: Path, tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path, ending: int, workers: int, code: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root / "Training")}
    words = [
        sys.executable,
        "-m",
        "mskd",
        "train",
        str(tiny_dataset),
        "--recipe",
        str(tiny_recipe),
        "--role",
        "student",
    ]
    words += ["--device", "cpu", "--cache", str(tmp_path / "cache"), "--set", "student.optimization.steps=90"]
    words += ["--set", "student.optimization.validate_every=15"]

    def command(name: str, processes: int, *more: str) -> list[str]:
        return [*words, "--output", str(tmp_path / name), "--set", f"student.optimization.workers={processes}", *more]

    subprocess.run(command("whole", 0), env=environment, check=True, capture_output=True, timeout=300)
    with subprocess.Popen(
        command("cut", workers), env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    ) as training:
        for _ in range(6000):
            if (tmp_path / "cut/checkpoints/step-00000030.pt").is_file():
                break
            time.sleep(0.01)
        training.send_signal(ending)
        _, told = training.communicate(timeout=120)
    assert training.returncode == code, told
    if ending == signal.SIGTERM:
        assert "continue with --resume" in told
    assert not (tmp_path / "cut/model").exists()
    assert not list((tmp_path / "cut/checkpoints").glob("*.partial"))
    subprocess.run(command("cut", workers, "--resume"), env=environment, check=True, capture_output=True, timeout=300)
    whole, cut = (open_package(tmp_path / name / "model").load_network().state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]
