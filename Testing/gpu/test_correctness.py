"""A GPU gives the labels that the CPU gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mskd.image import read_image
from mskd.inference import Engine, Region
from mskd.package import open_package

TRAINED, HARDLY_TRAINED = 0.999, 0.98
"""Least share of equal labels. A minute's training leaves voxels undecided, so half precision turns more of them."""


def equal_share(ours: Any, theirs: Any) -> float:
    return float(np.mean(ours.labels.array == theirs.labels.array))


@pytest.fixture(scope="module")
def on_cpu(student: Any, phantom: Any) -> Any:
    result = Engine(student, "cpu", backend="torch_eager").run(phantom)
    assert len(np.unique(result.labels.array)) > 5, "a phantom of one label would prove nothing"
    return result


@pytest.mark.real_data
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_trained_weights_on_real_images(real_data_folder: Path, precision: str) -> None:
    package = open_package("hippocampus-mr")
    cpu = Engine(package, "cpu", backend="torch_eager")
    gpu = Engine(package, "cuda", backend="torch_eager", precision=precision)
    for path in sorted((real_data_folder / "Task04_Hippocampus" / "imagesTr").glob("*.nii.gz"))[::20]:
        image = read_image(path)
        found = gpu.run(image)
        assert found.report["device"].startswith("cuda")
        assert equal_share(found, cpu.run(image)) >= TRAINED


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_many_labels_in_a_larger_image(student: Any, phantom: Any, on_cpu: Any, precision: str) -> None:
    found = Engine(student, "cuda", backend="torch_eager", precision=precision).run(phantom)
    assert found.report["device"].startswith("cuda")
    assert equal_share(found, on_cpu) >= HARDLY_TRAINED


def test_the_engines_own_choice(student: Any, phantom: Any, on_cpu: Any) -> None:
    found = Engine(student, "cuda").run(phantom)
    assert found.report["device"].startswith("cuda")
    assert equal_share(found, on_cpu) >= HARDLY_TRAINED


def test_a_region(student: Any, phantom: Any) -> None:
    region = Region.parse("-110,-30,-120,-40,30,150")
    on_cpu = Engine(student, "cpu", backend="torch_eager").run(phantom, region)
    found = Engine(student, "cuda").run(phantom, region)
    assert np.any(found.labels.array)
    assert equal_share(found, on_cpu) >= HARDLY_TRAINED
