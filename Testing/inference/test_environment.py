"""Devices, and the allocator that keeps what was freed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mskd.errors import SettingsError
from mskd.inference.environment import available_devices, choose_device, versions


def test_the_cpu_is_always_there() -> None:
    assert available_devices()[0] == "cpu"
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in available_devices()


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cuda:x", "cpu:1"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(SettingsError, match="device"):
        choose_device(name)


def test_versions_name_what_a_result_depends_on() -> None:
    assert {"mskd", "python", "torch", "numpy", "SimpleITK"} == set(versions())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a glibc setting")
def test_freed_memory_is_kept(root: Path) -> None:
    code = (
        "import numpy as np\n"
        "from mskd.inference.environment import keep_freed_memory\n"
        "from mskd.inference.memory import reusable_bytes\n"
        "def touch():\n"
        "    block = np.ones(200_000_000, dtype=np.uint8)\n"
        "touch(); before = reusable_bytes()\n"
        "done = keep_freed_memory()\n"
        "touch(); print(done, before < 100e6, reusable_bytes() > 190e6)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "Training")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr
