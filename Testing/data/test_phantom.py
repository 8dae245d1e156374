"""The phantom: reproducible, complete, on any grid, and not solvable by a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from mskd.data import open_dataset
from mskd.data.phantom import (
    ORGANS,
    SHAPE,
    SPACING,
    Anatomy,
    centred_geometry,
    make_phantom_dataset,
    oblique_geometry,
    render,
)
from mskd.errors import Cancelled, SettingsError
from mskd.evaluation.metrics import per_class_dice
from mskd.image import read_image, read_labels

SMALL = (20, 24, 24)
COARSE = (8.0, 8.0, 8.0)


@pytest.fixture(scope="module")
def subjects():
    geometry = centred_geometry(SHAPE, SPACING, np.eye(3))
    return [render(Anatomy(seed), geometry, seed) for seed in range(4)]


def test_every_subject_has_every_organ_at_a_believable_size(subjects):
    for _, labels in subjects:
        volumes = np.bincount(labels.ravel(), minlength=6)[1:] * np.prod(SPACING) / 1000
        assert np.all(volumes > [100, 15, 25, 15, 6])
        assert np.all(volumes < [500, 100, 200, 80, 40])


def test_even_the_best_threshold_of_each_case_fails(subjects):
    """An oracle that knows, for each grey value of this very case, the label it mostly has, still fails."""
    for image, labels in subjects:
        grey = image.astype(int) + 1024
        counts = np.stack([np.bincount(grey[labels == value], minlength=4096) for value in range(6)])
        likelihood = counts / counts.sum(axis=1, keepdims=True)
        for table in (counts, likelihood):
            dice = per_class_dice(table.argmax(axis=0)[grey].astype(np.uint8), labels, 6)
            assert dice.mean() < 0.35
            assert np.all(dice[1:] < 0.5)


def test_neighbours_touch_and_are_alike(subjects):
    image, labels = subjects[3]
    touching = {
        (int(a), int(b))
        for axis in range(3)
        for a, b in zip(
            np.take(labels, range(labels.shape[axis] - 1), axis).ravel(),
            np.take(labels, range(1, labels.shape[axis]), axis).ravel(),
            strict=True,
        )
        if a and b and a != b
    }
    assert {tuple(sorted(pair)) for pair in touching} & {(1, 3), (2, 3), (2, 4)}
    means = [image[labels == value].mean() for value in range(1, 6)]
    assert np.ptp(means) < 60
    assert min(image[labels == value].std() for value in range(1, 6)) > 10


def test_the_same_seed_gives_the_same_voxels_and_another_does_not(subjects):
    geometry = centred_geometry(SHAPE, SPACING, np.eye(3))
    again = render(Anatomy(0), geometry, 0)
    np.testing.assert_array_equal(again[0], subjects[0][0])
    np.testing.assert_array_equal(again[1], subjects[0][1])
    assert (subjects[0][1] != subjects[1][1]).mean() > 0.02


def test_one_anatomy_has_the_same_volumes_on_an_oblique_anisotropic_grid(subjects):
    geometry = oblique_geometry()
    assert not np.allclose(np.abs(geometry.matrix), np.eye(3), atol=0.1)
    assert len(set(geometry.spacing)) == 3
    _, labels = render(Anatomy(3), geometry, 3)
    ours = np.bincount(labels.ravel())[1:] * geometry.voxel_volume
    theirs = np.bincount(subjects[3][1].ravel())[1:] * np.prod(SPACING)
    np.testing.assert_allclose(ours, theirs, rtol=0.15)


def test_partial_volume_blurs_the_body_surface():
    geometry = centred_geometry(SMALL, COARSE, np.eye(3))
    image, _ = render(Anatomy(0), geometry, 0)
    assert np.count_nonzero((image > -900) & (image < -250)) > 50


def test_the_data_set_opens_and_reads(tmp_path):
    events = []
    folder = make_phantom_dataset(tmp_path / "set", 2, seed=5, shape=SMALL, spacing=COARSE, on_event=events.append)
    dataset = open_dataset(folder)
    assert {label.value: label.name for label in dataset.labels} == ORGANS
    assert dataset.channels[0].modality == "CT"
    assert [event.done for event in events] == [1, 2]
    for case in dataset.cases:
        image, labels = read_image(case.images[0]), read_labels(case.labels)
        assert image.geometry.matches(labels.geometry)
        assert image.geometry.shape == SMALL
        assert image.geometry.spacing == COARSE
    make_phantom_dataset(tmp_path / "again", 2, seed=5, shape=SMALL, spacing=COARSE)
    np.testing.assert_array_equal(read_image(tmp_path / "again/imagesTr/phantom_001.nii.gz").array, image.array)


def test_it_refuses_no_cases_and_a_folder_that_holds_a_data_set(tmp_path):
    with pytest.raises(SettingsError, match="at least 1 case, not 0"):
        make_phantom_dataset(tmp_path, 0)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(SettingsError, match="already"):
        make_phantom_dataset(tmp_path, 1)
    assert (tmp_path / "dataset.json").read_text() == "{}"


def test_cancelled_it_leaves_no_data_set(tmp_path):
    with pytest.raises(Cancelled):
        make_phantom_dataset(tmp_path, 2, shape=SMALL, spacing=COARSE, cancelled=lambda: True)
    assert not (tmp_path / "dataset.json").exists()
