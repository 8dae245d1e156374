"""Entropy against its definition, and what a run says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mskd.image import Geometry, Image
from mskd.inference import Engine
from mskd.inference.uncertainty import entropy_percent


@pytest.mark.parametrize("classes", [2, 3, 15, 256])
def test_the_extremes_of_entropy(classes: int) -> None:
    equal = torch.zeros(classes, 1)
    assert entropy_percent(equal, classes).item() == pytest.approx(100)
    sure = torch.full((classes, 1), -200.0)
    sure[1] = 0.0
    assert entropy_percent(sure, classes).item() == 0


def test_entropy_among_fewer_classes_than_there_are() -> None:
    equal = torch.zeros(3, 2, 40_000)
    assert entropy_percent(equal, 4).shape == (3, 40_000)
    assert entropy_percent(equal, 4).numpy() == pytest.approx(50, abs=1e-4)


def test_a_run_says_how_sure_it_is(threshold_package: Callable[..., Any]) -> None:
    voxels = np.zeros((1, 6, 12, 12), np.float32)
    voxels[0, :, 3:9, 3:9] = 1.0
    image = Image(voxels, Geometry((6, 12, 12)))
    engine = Engine(threshold_package((0.5, 5.0)), "cpu")
    silent, told = engine.run(image), engine.run(image, uncertainty=True)
    assert silent.uncertainty is None
    assert told.uncertainty is not None
    assert told.uncertainty.geometry == image.geometry
    assert told.uncertainty.array.dtype == np.uint8
    assert told.uncertainty.array.max() <= 100
    np.testing.assert_array_equal(silent.labels.array, told.labels.array)
    assert 0.3 < told.report["confidence"]["above 1"] <= 1
    assert told.report["confidence"]["above 2"] is None
