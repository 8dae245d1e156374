"""What the worker does for one request, without its process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mskd.events import never, silent
from mskd.image import Geometry, Image
from mskd.inference import Engine, Region
from mskd.inference.jobs import Engines, run_job
from mskd.inference.messages import Box, Placement, Run

SHAPE = (9, 20, 21)
PLACE = Placement(spacing=(1, 1, 1), origin=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
BOX = Box(minimum=(-12.0, -12.0, 2.0), maximum=(-4.0, -4.0, 5.0))


@pytest.mark.parametrize("box", [None, BOX])
def test_the_uncertainty_is_that_of_the_engine(
    threshold_package: Callable[..., Any], tmp_path: Path, box: Box | None
) -> None:
    package = threshold_package((10.5, 20.5))
    voxels = np.random.default_rng(0).integers(1, 41, SHAPE).astype(np.int16)
    np.save(tmp_path / "in.npy", voxels)
    request = Run(
        type="run",
        id=1,
        model=str(package.path),
        device="cpu",
        input=str(tmp_path / "in.npy"),
        geometry=PLACE,
        output=str(tmp_path / "out.npy"),
        uncertainty=str(tmp_path / "unsure.npy"),
        region=box,
    )
    answer = run_job(request, Engines(), silent, never)
    region = None if box is None else Region(box.minimum, box.maximum)
    image = Image(voxels[None], Geometry(SHAPE))
    expected = Engine(package, "cpu").run(image, region, uncertainty=True).uncertainty
    assert expected is not None
    inside = tuple(slice(first, end) for first, end in answer["box"])
    assert answer["uncertainty"] == request.uncertainty
    np.testing.assert_array_equal(np.load(tmp_path / "unsure.npy"), expected.array[0][inside])
    assert expected.array[0][inside].any()
    assert {path.name for path in tmp_path.iterdir()} == {"in.npy", "out.npy", "unsure.npy"}


def test_without_a_place_for_it_there_is_no_uncertainty(threshold_package: Callable[..., Any], tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.ones(SHAPE, np.int16))
    paths = {"input": str(tmp_path / "in.npy"), "output": str(tmp_path / "out.npy")}
    request = Run(type="run", id=1, model=str(threshold_package((0.5,)).path), device="cpu", geometry=PLACE, **paths)
    assert run_job(request, Engines(), silent, never)["uncertainty"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"in.npy", "out.npy"}
