"""Metrics against brute force, against MONAI, and the policy for missing organs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskd.evaluation.metrics import per_class_dice, score, surface_distances
from mskd.spec import IGNORE


def blob(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def random_masks(seed, shape):
    generator = np.random.default_rng(seed)
    masks = generator.random((2, *shape)) < generator.uniform(0.05, 0.9)
    masks[:, 0] |= ~masks.any(axis=tuple(range(1, masks.ndim)), keepdims=True)[:, 0]
    return masks


def brute_surface(mask):
    """Coordinates of the voxels with a face neighbour outside the mask, by looking at each neighbour."""
    found = []
    for index in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                near = index.copy()
                near[axis] += step
                if near[axis] in (-1, mask.shape[axis]) or not mask[tuple(near)]:
                    found.append(tuple(index))
    return np.array(sorted(set(found)), float)


def brute_distances(a, b, spacing):
    pairs = np.linalg.norm((brute_surface(a)[:, None] - brute_surface(b)[None]) * np.asarray(spacing), axis=-1)
    return pairs.min(axis=1), pairs.min(axis=0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.one_of(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(1, 8)] * 2)),
    step=st.floats(0.3, 7),
)
def test_surface_distances_equal_brute_force(seed, shape, step):
    prediction, truth = random_masks(seed, shape)
    spacing = (step, 1.0, 0.7)[: len(shape)]
    for fast, slow in zip(
        surface_distances(prediction, truth, spacing), brute_distances(prediction, truth, spacing), strict=True
    ):
        np.testing.assert_allclose(np.sort(fast), np.sort(slow))
    forth, back = brute_distances(prediction, truth, spacing)
    scores = score(prediction, truth, spacing, tolerance=1.5)
    assert scores.nsd == pytest.approx(np.mean(np.concatenate([forth, back]) <= 1.5))
    assert scores.hd95 == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)))


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_monai_when_both_organs_are_there(seed):
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    generator = np.random.default_rng(seed)
    truth = blob((14, 18, 16), (3, 4, 4), (9, 12, 11))
    prediction = np.roll(truth, generator.integers(-2, 3, 3), (0, 1, 2)) & (generator.random(truth.shape) < 0.98)
    spacing = [2.5, 1.0, 0.8]
    as_batch = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (prediction, truth)]
    scores = score(prediction, truth, spacing, tolerance=1.0)
    hd95 = compute_hausdorff_distance(*as_batch, include_background=True, percentile=95, spacing=spacing)
    nsd = compute_surface_dice(*as_batch, class_thresholds=[1.0], include_background=True, spacing=spacing)
    assert scores.hd95 == pytest.approx(hd95.item(), abs=1e-4)
    assert scores.nsd == pytest.approx(nsd.item(), abs=1e-4)


def test_a_shift_along_one_axis_is_measured_in_millimetres():
    truth = blob((20, 10, 10), (4, 2, 2), (10, 8, 8))
    moved = np.roll(truth, 2, axis=0)
    scores = score(moved, truth, (3.0, 1.0, 1.0), tolerance=1.0)
    assert scores.hd95 == pytest.approx(6.0)
    assert scores.dice == pytest.approx(2 * 4 / (6 + 6))
    assert scores.volume_error_ml == 0
    assert score(moved, truth, (3.0, 1.0, 1.0), tolerance=6.0).nsd == 1.0


def test_volume_error_is_signed_and_in_millilitres():
    truth, prediction = blob((9, 9, 9), (0, 0, 0), (4, 5, 5)), blob((9, 9, 9), (0, 0, 0), (3, 5, 5))
    scores = score(prediction, truth, (4.0, 5.0, 2.0))
    assert scores.volume_error_ml == pytest.approx(-25 * 40 / 1000)
    assert scores.volume_error_percent == pytest.approx(-25.0)


def test_a_missed_organ_costs_everything_and_is_never_dropped():
    truth, nothing = blob((10, 20, 30), (2, 2, 2), (5, 5, 5)), np.zeros((10, 20, 30), bool)
    scores = score(nothing, truth, (3.0, 1.0, 1.0))
    diagonal = math.sqrt(30**2 + 20**2 + 30**2)
    assert (scores.dice, scores.nsd, scores.hd95) == (0.0, 0.0, pytest.approx(diagonal))
    assert scores.volume_error_percent == -100.0


def test_an_invented_organ_scores_zero_without_a_percentage():
    nothing, invented = np.zeros((4, 4, 4), bool), blob((4, 4, 4), (0, 0, 0), (2, 2, 2))
    scores = score(invented, nothing, (1.0, 1.0, 1.0))
    assert (scores.dice, scores.nsd, scores.hd95) == (0.0, 0.0, pytest.approx(math.sqrt(48)))
    assert scores.volume_error_ml == pytest.approx(0.008)
    assert math.isnan(scores.volume_error_percent)


def test_an_organ_absent_in_both_is_not_a_number():
    nothing = np.zeros((4, 4, 4), bool)
    assert all(math.isnan(value) for value in vars(score(nothing, nothing, (1.0, 1.0, 1.0))).values())


def test_per_class_dice_by_hand():
    truth = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    prediction = np.array([[1, 1, 0], [2, 2, 2]], np.uint8)
    np.testing.assert_allclose(per_class_dice(prediction, truth, 5), [0.5, 0.8, np.nan, np.nan])
    assert per_class_dice(np.full((2, 2), 3), np.zeros((2, 2), int), 4)[2] == 0.0


def test_ignored_voxels_do_not_count():
    truth = np.array([[0, 1, 1, IGNORE], [2, IGNORE, IGNORE, IGNORE]], np.uint8)
    prediction = np.array([[0, 1, 0, 1], [2, 2, 2, 0]], np.uint8)
    np.testing.assert_allclose(per_class_dice(prediction, truth, 4), [2 / 3, 1.0, np.nan])
    assert np.isnan(per_class_dice(prediction, np.full_like(truth, IGNORE), 4)).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_per_class_dice_equals_the_dice_of_each_mask(seed):
    generator = np.random.default_rng(seed)
    prediction, truth = generator.integers(0, 4, (2, 4, 5, 3))
    for value, dice in enumerate(per_class_dice(prediction, truth, 6), start=1):
        expected = score(prediction == value, truth == value, (1.0, 1.0, 1.0)).dice
        np.testing.assert_allclose(dice, expected)


@pytest.mark.parametrize(
    ("prediction", "truth", "says"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "same shape"),
        (np.full((2, 2), 4), np.zeros((2, 2), int), "values 4..4"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "values -1..-1"),
    ],
)
def test_per_class_dice_refuses_what_does_not_fit(prediction, truth, says):
    with pytest.raises(ValueError, match=says):
        per_class_dice(prediction, truth, 4)


@pytest.mark.parametrize(("spacing", "tolerance"), [((1.0, 1.0), 1.0), ((1.0, 0.0, 1.0), 1.0), ((1.0, 1.0, 1.0), 0.0)])
def test_score_refuses_spacing_or_tolerance_that_mean_nothing(spacing, tolerance):
    cube = np.ones((2, 2, 2), bool)
    with pytest.raises(ValueError, match="positive"):
        score(cube, cube, spacing, tolerance)
