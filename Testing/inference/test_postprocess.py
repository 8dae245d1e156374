"""The largest piece of a label, and its holes, on small arrays and against SciPy-free oracles."""

from __future__ import annotations

import numpy as np
import pytest

from mskd.inference.postprocess import fill_holes, keep_largest


def shell(shape: tuple[int, ...] = (9, 9, 9)) -> np.ndarray:
    """A hollow block of label 1 with another label inside."""
    labels = np.zeros(shape, np.uint8)
    labels[1:8, 1:8, 1:8] = 1
    labels[3:6, 3:6, 3:6] = 0
    labels[4, 4, 4] = 2
    return labels


def test_a_hole_is_filled_and_what_lies_in_it_stays() -> None:
    labels = shell()
    fill_holes(labels, [1, 7])
    assert labels[4, 4, 4] == 2
    assert (labels[1:8, 1:8, 1:8] == 1).sum() == 7**3 - 1
    assert not labels[0].any()


@pytest.mark.parametrize(("at", "filled"), [((1, 4, 4), False), ((2, 2, 2), True)])
def test_what_is_open_through_a_face_is_no_hole(at: tuple[int, int, int], filled: bool) -> None:
    labels = shell()
    labels[1:3, 4, 4] = 0 if not filled else 1
    labels[at] = 0  # by an edge or a corner alone the hole is not open
    fill_holes(labels, [1])
    assert bool(labels[3, 3, 3]) is filled


def test_the_border_of_the_image_is_open() -> None:
    labels = shell()[3:]
    fill_holes(labels, [1])
    assert not labels[0, 3, 3]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_is_looked_at_in_its_plane(axis: int) -> None:
    labels = np.expand_dims(shell()[4], axis)
    fill_holes(labels, [1])
    assert labels.squeeze()[3, 3] == 1
    assert labels.squeeze()[4, 4] == 2


def test_a_line_has_no_hole() -> None:
    labels = np.array([1, 0, 1], np.uint8).reshape(3, 1, 1)
    fill_holes(labels, [1])
    np.testing.assert_array_equal(labels.ravel(), [1, 0, 1])


def test_the_largest_of_many_pieces_in_turned_memory() -> None:
    labels = np.zeros((10, 20, 30), np.uint8).transpose(2, 0, 1)[::-1]
    labels[2:8, 2:8, 2:8] = 1
    labels[8, 8, 8] = 1  # touches by a corner only
    labels[20:22, 3, 3] = 1
    labels[15, 1, 1] = 3
    labels[25:27, 1, 1] = 3
    keep_largest(labels, [1, 2, 3])
    assert (labels == 1).sum() == 6**3
    assert (labels == 3).sum() == 2
