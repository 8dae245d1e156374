"""Tests that need a CUDA device: elsewhere each of them skips, visibly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))


@pytest.fixture(scope="session")
def needs_cuda() -> None:
    """Skips without a CUDA device, before anything is made ready for one."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


@pytest.fixture(autouse=True)
def cuda(needs_cuda: None) -> Iterator[None]:
    """Every test starts with the device's memory given back and its peak forgotten."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def phantom() -> Any:
    """A smooth CT-like image of 96 x 160 x 144 voxels, 2 x 1 x 1 mm: big enough for several windows of the student."""
    from mskd.image.geometry import Geometry, Image

    shape, spacing = (96, 160, 144), (2.0, 1.0, 1.0)
    axes = np.meshgrid(*(np.linspace(0, 3 * np.pi, side) for side in shape), indexing="ij")
    waves = sum(np.sin(axis + 0.5 * index) for index, axis in enumerate(axes))
    noise = np.random.default_rng(0).normal(0, 10, shape)
    geometry = Geometry(shape, spacing, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    return Image((300 * waves + noise).astype(np.float32)[None], geometry)


@pytest.fixture(scope="session")
def student(needs_cuda: None, phantom: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The benchmark's CT student, which has learnt nine layers of the phantom's density."""
    from peers.students import make_students

    from mskd.package import open_package

    folder = tmp_path_factory.mktemp("student")
    make_students(phantom, folder, patch=64, seed=0, edges=np.linspace(-560, 560, 8).tolist())
    return open_package(folder / "light")
