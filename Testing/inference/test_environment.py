"""Devices, and the allocator that keeps what was freed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mskd.errors import SettingsError
from mskd.inference import environment
from mskd.inference.environment import available_devices, choose_device, usable_cores, versions
from mskd.networks import build_network
from mskd.package import save_package
from mskd.spec import NetworkSpec

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


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
    assert _run(root, code) == ["True", "True", "True"]


@pytest.mark.skipif(
    not HUGE_PAGES.is_file() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="nobody has to ask for huge pages here",
)
def test_numpy_asks_for_no_huge_pages(root: Path) -> None:
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from mskd.inference.environment import keep_freed_memory\n"
        "def huge():\n"
        "    block = np.ones(200_000_000, dtype=np.uint8)\n"
        "    return int(re.search(r'AnonHugePages: +(\\d+)', Path('/proc/self/smaps_rollup').read_text())[1])\n"
        "before = huge(); keep_freed_memory(); print(before > 100_000, huge() < 10_000)\n"
    )
    asked, silent = _run(root, code)
    if asked == "False":
        pytest.skip("the system has no huge pages left")
    assert silent == "True"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a glibc setting")
def test_kept_memory_can_be_given_back(root: Path) -> None:
    code = (
        "import numpy as np, torch\n"
        "from mskd.inference.environment import give_back_memory, keep_freed_memory\n"
        "from mskd.inference.memory import resident_bytes\n"
        "keep_freed_memory()\n"
        "before = resident_bytes()\n"
        # The last block keeps the heap from shrinking at its end.
        "block = np.ones(200_000_000, dtype=np.uint8); last = np.ones(1000); del block\n"
        "kept = resident_bytes() - before\n"
        "give_back_memory(); print(kept > 190e6, resident_bytes() - before < 20e6)\n"
    )
    assert _run(root, code) == ["True", "True"]


@pytest.mark.parametrize("extra", [{}, {"separable": True, "strides": [[2, 2, 2]] * 3}], ids=["plain", "separable"])
def test_a_run_does_not_import_the_compiler_of_pytorch(
    threshold_package: Callable[..., Any], root: Path, extra: dict[str, Any]
) -> None:
    """It takes a second and 90 MB, and a processor's PyTorch computes without it."""
    arguments = {"dim": 3, "in_channels": 1, "classes": 2, "channels": [4, 6, 8], **extra}
    network = build_network(NetworkSpec(name="light_unet", arguments=arguments)).eval()
    manifest = threshold_package((0.5,)).manifest.model_copy(
        update={"network": NetworkSpec(name="light_unet", arguments=arguments)}
    )
    package = save_package(threshold_package((0.5,)).path.parent / "other", manifest, network)
    code = (
        "import sys, numpy as np\n"
        "from mskd.image import Geometry, Image\n"
        "from mskd.inference import Engine\n"
        "from mskd.package import open_package\n"
        f"engine = Engine(open_package({str(package.path)!r}), 'cpu', backend='torch_eager')\n"
        "engine.run(Image(np.ones((1, 40, 40, 40), np.int16), Geometry((40, 40, 40))))\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    assert _run(root, code) == ["False"]


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for processor, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        (tmp_path / f"cpu{processor}").write_text(f"{siblings}\n")
    monkeypatch.setattr(environment, "SIBLINGS", str(tmp_path / "cpu{}"))
    monkeypatch.setattr(environment, "QUOTAS", ())
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    assert usable_cores() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2}, raising=False)
    assert usable_cores() == 1
    monkeypatch.setattr(environment, "SIBLINGS", str(tmp_path / "absent{}"))
    assert usable_cores() == 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"max": "150000 100000"}, 2),
        ({"max": "50000 100000"}, 1),
        ({"max": "max 100000"}, 8),
        ({"quota": "300000", "period": "100000"}, 3),
        ({"quota": "-1", "period": "100000"}, 8),
        ({}, 8),
    ],
)
def test_cores_are_those_that_a_container_grants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    places = ((str(tmp_path / "max"), ""), (str(tmp_path / "quota"), str(tmp_path / "period")))
    monkeypatch.setattr(environment, "QUOTAS", places)
    monkeypatch.setattr(environment, "SIBLINGS", str(tmp_path / "absent{}"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert usable_cores() == cores


@pytest.mark.parametrize("wish", ["3", ""])
def test_the_users_number_of_threads_is_obeyed(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    environment.use_cores()
    assert chosen == ([] if wish else [max(2, usable_cores())])


def _run(root: Path, code: str, **variables: str) -> list[str]:
    """The words that ``code`` prints in a process of its own."""
    variables = {**os.environ, "PYTHONPATH": str(root / "Training"), **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
