"""Nothing that segments or opens a model touches the network: its processes are ended where they try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

GUARD = """
import os, sys
def guard(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        os.write(2, f"the network was touched: {event} {arguments!r}".encode())
        os._exit(99)
sys.addaudithook(guard)
"""


@pytest.fixture
def offline(root: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python with arguments, where the first use of a socket ends the process with code 99."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    paths = os.pathsep.join([str(guard), str(root / "Training")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

    def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, input=text, capture_output=True, encoding="utf-8", env=environment, check=False)

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).normal(10, 5, (9, 20, 21))), str(path))
    return path


def test_the_guard_guards(offline: Any) -> None:
    done = offline("-c", "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert done.returncode == 99
    assert "the network was touched" in done.stderr


@pytest.mark.parametrize("command", ["segment", "info", "verify", "models"])
def test_the_command_line(offline: Any, threshold_package: Any, image: Path, tmp_path: Path, command: str) -> None:
    model = str(threshold_package((10.5,)).path)
    output = tmp_path / "labels.nii.gz"
    arguments = {
        "segment": ["segment", str(image), "--model", model, "--output", str(output), "--device", "cpu"],
        "info": ["info", model],
        "verify": ["verify", model],
        "models": ["models"],
    }
    done = offline("-m", "mskd", *arguments[command])
    assert done.returncode == 0, done.stderr
    assert output.exists() == (command == "segment")


def test_the_worker(offline: Any, threshold_package: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((9, 20, 21), np.int16))
    model = str(threshold_package((10.5,)).path)
    run = {
        "type": "run",
        "id": 1,
        "model": model,
        "device": "cpu",
        "input": str(tmp_path / "in.npy"),
        "geometry": {"spacing": [1, 1, 1], "origin": [0, 0, 0], "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
        "output": str(tmp_path / "out.npy"),
    }
    requests = [{"type": "hello"}, {"type": "describe", "id": 0, "model": model}, run]
    done = offline("-m", "mskd.inference.worker", text="\n".join(map(json.dumps, requests)))
    assert done.returncode == 0, done.stderr
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert [kind for kind in kinds if kind != "event"] == ["ready", "described", "result"]
