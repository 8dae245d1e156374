"""Overlays: the right slice, the right way up, the right colours."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest

from mskd.evaluation.overlay import Upright, best_slice, error_slice, overlay, pixels, save_overlay
from mskd.image import Geometry, Image, LabelMap
from mskd.spec import IGNORE, Label

LABELS = (Label(value=1, name="red organ", color=(255, 0, 0)), Label(value=2, name="green organ", color=(0, 255, 0)))


def scene(direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)):
    labels = np.zeros((10, 16, 14), np.uint8)
    labels[2:6, 3:9, 3:7] = 1
    labels[4:8, 8:14, 8:12] = 2
    geometry = Geometry(labels.shape, (3.0, 1.0, 1.5), (0.0, 0.0, 0.0), direction)
    image = np.random.default_rng(0).normal(100, 5, labels.shape).astype(np.float32)
    return Image(image[None], geometry), LabelMap(labels, geometry)


def coloured(path, channel):
    pixels = matplotlib.image.imread(path)[..., :3]
    others = [other for other in range(3) if other != channel]
    return int(np.sum((pixels[..., channel] > 0.9) & (pixels[..., others].max(axis=-1) < 0.1)))


def test_it_draws_each_label_in_its_colour(tmp_path):
    image, truth = scene()
    path = save_overlay(tmp_path / "both.png", image, truth, {"student": truth}, LABELS)
    assert coloured(path, 0) > 200
    assert coloured(path, 1) > 200
    only_one = LabelMap(np.where(truth.array == 1, 1, 0).astype(np.uint8), truth.geometry)
    path = save_overlay(tmp_path / "one.png", image, None, {"student": only_one}, LABELS[:1])
    assert coloured(path, 1) == 0


def test_it_draws_an_empty_prediction_and_a_margin(tmp_path):
    image, truth = scene()
    nothing = LabelMap(np.zeros_like(truth.array), truth.geometry)
    rows = {"nothing": nothing, "all": truth}
    assert save_overlay(tmp_path / "a.png", image, None, rows, LABELS, margin=2.0).stat().st_size > 1000
    assert save_overlay(tmp_path / "b.png", image, None, {"": nothing}, LABELS, margin=2.0).stat().st_size > 1000


def test_it_refuses_another_grid_and_no_prediction(tmp_path):
    image, truth = scene()
    shifted = LabelMap(truth.array, Geometry(truth.geometry.shape, truth.geometry.spacing, (5.0, 0.0, 0.0)))
    for predictions in ({}, {"student": shifted}):
        with pytest.raises(ValueError, match="own grid"):
            save_overlay(tmp_path / "no.png", image, truth, predictions, LABELS)


def test_the_best_slice_shows_most_of_every_label():
    labels = np.zeros((6, 8, 8), np.uint8)
    labels[1, :, :] = 1
    labels[3, :6, :] = 1
    labels[3, 7, :2] = 2
    assert best_slice(labels, 0) == 3
    assert best_slice(np.where(labels == 1, labels, 0), 0) == 1
    assert best_slice(np.zeros((3, 3, 3), np.uint8), 0) == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
def test_a_turned_and_flipped_grid_is_shown_upright(order, signs):
    """Each voxel holds its own LPS coordinate; upright, every coordinate must grow along its own axis."""
    matrix = np.zeros((3, 3))
    for index, (world, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[world, index] = sign
    geometry = Geometry((4, 5, 6), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), tuple(matrix.ravel()))
    turn = Upright(geometry)
    indices = np.stack(np.meshgrid(*[np.arange(side) for side in geometry.shape], indexing="ij"), -1)
    points = indices[..., ::-1] * np.asarray(geometry.spacing[::-1]) @ geometry.matrix.T
    for axis, world in enumerate((2, 1, 0)):
        upright = turn(points[..., world])
        np.testing.assert_allclose(np.diff(upright, axis=axis), turn.spacing[axis])


def test_what_the_truth_ignores_is_not_drawn(tmp_path):
    image, truth = scene()
    hidden = truth.array.copy()
    hidden[8] = IGNORE
    pictures = [
        matplotlib.image.imread(save_overlay(tmp_path / f"{name}.png", image, drawn, {"student": truth}, LABELS))
        for name, drawn in (("plain", truth), ("hidden", LabelMap(hidden, truth.geometry)))
    ]
    np.testing.assert_array_equal(*pictures)


def test_the_slice_of_the_errors_costs_most_dice_not_most_voxels():
    truth = np.zeros((8, 10, 10), np.uint8)
    truth[1:4] = 1  # large, wrong in ten voxels of slice 2
    truth[6, 0, :4] = 2  # small, missed whole
    found = truth.copy()
    found[2, 0] = 0
    assert error_slice(truth, [found], 0, classes=3) == 2
    found[6] = 0
    assert error_slice(truth, [found], 0, classes=3) == 6
    assert error_slice(truth, [truth], 0, classes=3) == best_slice(truth, 0)
    ignored = np.where(truth == 2, 255, truth)
    assert error_slice(ignored, [found], 0, classes=3) == 2


def test_one_axis_has_the_proportions_of_the_volume_and_names_are_no_formulas():
    image, truth = scene()  # 16 x 14 voxels of 1.0 x 1.5 mm in an axial slice
    labels = (LABELS[0].model_copy(update={"name": "_a $\\frac{$ <b>"}), LABELS[1])
    figure = overlay(image, truth, {"$x": truth}, labels, axes=(0,))
    picture, box = pixels(figure), figure.axes[0].get_window_extent()
    assert box.height / box.width == pytest.approx(16 / 21, rel=0.01)
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    assert picture.shape[1] - 30 < box.width < picture.shape[1]
