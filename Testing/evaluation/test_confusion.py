"""The confusion matrix, against figures counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mskd.evaluation.confusion import Mistake, count_voxels, pooled

TRUTH = np.array([[0, 0, 1, 1], [1, 1, 2, 255]], np.uint8)
FOUND = np.array([[0, 1, 1, 2], [0, 1, 1, 2]], np.uint8)


def test_rows_are_the_truth_and_ignored_voxels_do_not_count() -> None:
    assert count_voxels(FOUND, TRUTH, 3).tolist() == [[1, 1, 0], [1, 2, 1], [0, 1, 0]]


def test_shares_of_pooled_cases() -> None:
    counts = count_voxels(FOUND, TRUTH, 3)
    found = pooled([counts, counts], ["liver", "spleen"])
    assert found.names == ("background", "liver", "spleen")
    assert found.shares.tolist() == [[0.5, 0.5, 0], [0.25, 0.5, 0.25], [0, 1, 0]]
    assert found.organ_to_organ == pytest.approx(2 / 5)
    assert found.missed == pytest.approx(1 / 5)
    assert found.mistakes(9) == [Mistake("spleen", "liver", 1.0, 2), Mistake("liver", "spleen", 0.25, 2)]
    assert found.mistakes(1) == [Mistake("spleen", "liver", 1.0, 2)]


def test_no_organ_at_all_is_no_number() -> None:
    nothing = np.zeros((2, 2), np.uint8)
    found = pooled([count_voxels(nothing, nothing, 2)], ["liver"])
    assert math.isnan(found.organ_to_organ)
    assert found.shares.tolist() == [[1, 0], [0, 0]]
    with pytest.raises(ValueError, match="same shape"):
        count_voxels(nothing, nothing[:1], 2)
