"""A GPU gives the labels that the CPU gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mskd.inference import Engine, Region

ENOUGH = 0.999


def equal_share(ours: Any, theirs: Any) -> float:
    return float(np.mean(ours.labels.array == theirs.labels.array))


@pytest.fixture(scope="module")
def on_cpu(student: Any, phantom: Any) -> Any:
    result = Engine(student, "cpu", backend="torch_eager").run(phantom)
    assert len(np.unique(result.labels.array)) > 5, "a phantom of one label would prove nothing"
    return result


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_labels_equal_those_of_the_cpu(student: Any, phantom: Any, on_cpu: Any, precision: str) -> None:
    found = Engine(student, "cuda", backend="torch_eager", precision=precision).run(phantom)
    assert found.report["device"].startswith("cuda")
    assert equal_share(found, on_cpu) >= ENOUGH


def test_the_engines_own_choice_gives_them_too(student: Any, phantom: Any, on_cpu: Any) -> None:
    found = Engine(student, "cuda").run(phantom)
    assert found.report["device"].startswith("cuda")
    assert equal_share(found, on_cpu) >= ENOUGH


def test_a_second_run_gives_the_same_labels(student: Any, phantom: Any) -> None:
    engine = Engine(student, "cuda")
    assert np.array_equal(engine.run(phantom).labels.array, engine.run(phantom).labels.array)


def test_a_region_gives_the_same_on_both(student: Any, phantom: Any) -> None:
    region = Region.parse("-110,-30,-120,-40,30,150")
    on_cpu = Engine(student, "cpu", backend="torch_eager").run(phantom, region)
    found = Engine(student, "cuda").run(phantom, region)
    assert np.any(found.labels.array)
    assert equal_share(found, on_cpu) >= ENOUGH
