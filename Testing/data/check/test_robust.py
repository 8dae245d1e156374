"""Medians against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mskd.data.check.robust import centre_and_spread, robust_z


def test_an_outlier_does_not_hide_itself() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1000.0]
    centre, spread = centre_and_spread(values, 0.1)
    assert (float(centre), float(spread)) == (5.0, pytest.approx(2 * 1.4826))
    np.testing.assert_allclose(robust_z(values, 0.1)[[0, 4, 8]], [-4 / 2.9652, 0, 995 / 2.9652])


def test_the_floor_and_missing_values() -> None:
    same = np.array([[5.0, np.nan]] * 8 + [[6.0, 1.0]])
    assert robust_z(same, 0.5).tolist() == [[0.0, 0.0]] * 8 + [[2.0, 0.0]]
    assert robust_z([1.0] * 6 + [99.0], 0.1).tolist() == [0.0] * 7  # too few to say what is usual
