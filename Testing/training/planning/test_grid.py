"""Orientation, spacing and dimension."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mskd.image import Geometry
from mskd.inference.grid import make_grid
from mskd.spec import Normalization
from mskd.training.planning.grid import (
    Cases,
    choose_dim,
    choose_orientation,
    choose_spacing,
    coarser,
    smallest_label,
)
from mskd.training.rundata import RunInput


@pytest.mark.parametrize("orientation", ["LPS", "LSP", "PSL", "RAS", "ILP"])
def test_cases_are_turned_as_the_engine_turns_them(fingerprint: Callable, orientation: str) -> None:
    source = Geometry((5, 6, 7), (3.0, 2.0, 1.0))  # an identity direction: LPS
    spec = RunInput((None, None, None), orientation, Normalization(name="none"))
    turned = make_grid(source, spec).oriented
    cases = Cases(fingerprint([(source.shape, source.spacing)]), orientation)
    assert tuple(cases.shapes[0]) == turned.shape
    assert tuple(cases.spacings[0]) == turned.spacing


@pytest.mark.parametrize(
    ("spacing", "orientation"),
    [
        ((7.7, 1.25, 1.25), "LPS"),
        ((1.25, 7.7, 1.25), "LSP"),
        ((1.25, 1.25, 7.7), "PSL"),
        ((1.0, 2.5, 1.0), "LPS"),
    ],
)
def test_a_coarse_axis_comes_first(fingerprint: Callable, spacing: tuple, orientation: str) -> None:
    facts = fingerprint([((64, 64, 64), spacing)])
    assert choose_orientation(facts)[0] == orientation
    first = Cases(facts, orientation).spacings[0]
    assert orientation == "LPS" or first[0] == first.max()


def test_the_spacing_is_the_median_but_for_few_thick_slices(fingerprint: Callable) -> None:
    grids = [((20, 256, 256), (thick, 1.2, 1.2)) for thick in (5.0, 9.0, 10.0, 10.0, 10.0)]
    spacing, why = choose_spacing(Cases(fingerprint(grids), "LPS"))
    assert spacing == (pytest.approx(np.percentile([5, 9, 10, 10, 10], 10), rel=1e-3), 1.2, 1.2)
    assert "10th percentile" in why
    many = [((200, 256, 256), spacing) for _, spacing in grids]
    assert choose_spacing(Cases(fingerprint(many), "LPS"))[0] == (10.0, 1.2, 1.2)


def test_median_shape_is_taken_on_the_new_grid(fingerprint: Callable) -> None:
    cases = Cases(fingerprint([((10, 20, 30), (2.0, 1.0, 1.0)), ((20, 20, 30), (2.0, 1.0, 1.0))]), "LPS")
    assert cases.median_shape((1.0, 2.0, 1.0)) == (30, 10, 30)
    assert cases.median_shape((0.0, 2.0, 1.0)) == (15, 10, 30)


def test_few_slices_are_seen_one_by_one() -> None:
    assert choose_dim((8.0, 1.0, 1.0), (10, 256, 256))[0] == 2
    assert choose_dim((8.0, 1.0, 1.0), (36, 256, 256))[0] == 3


def test_coarser_grids_become_isotropic_first() -> None:
    assert coarser((5.0, 1.0, 1.0), 1.1) == pytest.approx((5.0, 1.1, 1.1))
    assert coarser((1.5, 1.0, 1.0), 2.0) == (3.0, 2.0, 2.0)


def test_the_smallest_label_counts_in_voxels_of_the_grid(fingerprint: Callable) -> None:
    facts = fingerprint([((9, 9, 9), (1.0, 1.0, 1.0))] * 2, big=[{}, {}], small=[{"millilitres": 1.0}] * 2)
    assert smallest_label(facts, (2.0, 1.0, 1.0)) == pytest.approx(500)
    assert smallest_label(fingerprint([((9, 9, 9), (1.0, 1.0, 1.0))]), (2.0, 1.0, 1.0)) == np.inf
