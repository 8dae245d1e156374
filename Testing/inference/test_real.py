"""The bundled model on real examinations: it finds the hippocampus in crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mskd.data import open_dataset
from mskd.data.prepared import read_case
from mskd.evaluation.metrics import per_class_dice
from mskd.inference import Engine
from mskd.package import open_package

pytestmark = pytest.mark.real_data


def test_the_bundled_model_segments_real_crops(real_data_folder: Path) -> None:
    engine = Engine(open_package("hippocampus-mr"), "cpu")
    dataset = open_dataset(real_data_folder / "Task04_Hippocampus")
    scores = []
    for case in dataset.labelled[::25]:
        image, truth = read_case(dataset, case)
        assert truth is not None
        scores.append(per_class_dice(engine.run(image).labels.array, truth.array, 3))
    assert np.mean(scores) > 0.85
    assert np.min(scores) > 0.7
