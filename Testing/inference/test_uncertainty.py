"""Entropy and certainty against their definitions, and what a run says of itself."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from mskd.image import Geometry, Image
from mskd.inference import Engine
from mskd.inference.uncertainty import certain_probability, entropy_percent


@pytest.mark.parametrize("classes", [2, 3, 15, 256])
def test_the_extremes_of_entropy(classes: int) -> None:
    equal = torch.zeros(1, classes)
    assert entropy_percent(equal, equal[:, 0]).item() == 100
    sure = torch.zeros(1, classes)
    sure[0, 1] = 200.0
    assert entropy_percent(sure, sure[:, 1]).item() == 0


@pytest.mark.parametrize("classes", [2, 3, 15, 256])
def test_certain_is_what_rounds_to_nothing_at_worst(classes: int) -> None:
    winner = certain_probability(classes)
    rest = (1 - winner) / (classes - 1)
    worst = -winner * log(winner) - (classes - 1) * rest * log(rest)
    assert worst / log(classes) < 0.005
    assert worst / log(classes) > 0.003  # and not so careful that nothing is ever skipped


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
