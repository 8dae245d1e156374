"""What is air for a model is neither looked at nor labelled, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mskd.image import Geometry, Image
from mskd.inference import Engine
from mskd.inference.body import MARGIN_MM, body_box, normalized_air
from mskd.inference.preprocess import normalize
from mskd.spec import Normalization

CT = Normalization(name="clip_zscore", lower=-200.0, upper=300.0, mean=-250.0, std=77.7)


def test_box_of_a_body() -> None:
    voxels = np.full((2, 60, 40, 40), -1000, np.int16)
    voxels[0, 20:30, 15, 18] = 40
    voxels[1, 25, 20, 30] = -199
    box = body_box(voxels, -200.0, (2.0, 1.0, 4.0))
    assert MARGIN_MM == 10.0
    assert box == (slice(15, 35), slice(5, 31), slice(15, 34))


def test_nothing_but_air() -> None:
    assert body_box(np.full((1, 4, 4, 4), -1000, np.int16), -200.0, (1.0, 1.0, 1.0)) is None


@pytest.mark.parametrize("lower", [-200.0, -1023.7, 0.1])
def test_air_after_normalisation_is_exactly_that(lower: float) -> None:
    normalization = CT.model_copy(update={"lower": lower})
    volume = normalize(torch.full((1, 2, 2, 2), -2000.0), normalization)
    assert volume.unique().tolist() == [normalized_air(normalization)]
    assert normalized_air(Normalization(name="zscore")) is None


@pytest.mark.parametrize("orientation", ["LPS", "SAR"])
def test_the_engine_looks_at_the_body_alone(threshold_package: Callable[..., Any], orientation: str) -> None:
    voxels = np.full((1, 50, 60, 70), -1000, np.int16)
    voxels[0, 20:30, 30:36, 25:50] = np.random.default_rng(0).integers(-150, 250, (10, 6, 25))
    values = (voxels.astype(np.float32).clip(CT.lower, CT.upper) - CT.mean) / CT.std
    package = threshold_package((1.5, 4.0), normalization=CT, orientation=orientation)
    result = Engine(package, "cpu").run(Image(voxels, Geometry((50, 60, 70), (2.0, 1.0, 1.0))))
    assert sorted(result.report["plan"]["voxels"]) == [20, 26, 45]
    np.testing.assert_array_equal(result.labels.array, np.digitize(values[0], (1.5, 4.0)))


def test_an_image_of_air_is_background(threshold_package: Callable[..., Any]) -> None:
    package = threshold_package((1.5, 4.0), normalization=CT)
    result = Engine(package, "cpu").run(Image(np.full((1, 8, 9, 10), -1000, np.int16), Geometry((8, 9, 10))))
    assert not result.labels.array.any()
