"""Patches: repeatable, aligned with their labels, and geometrically what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mskd.data.intensity import CHANGES
from mskd.data.patches import PatchSampler
from mskd.data.prepared import PreparedCase
from mskd.data.spatial import crop, random_matrix, warp
from mskd.training.settings import AugmentationSettings

EVERYTHING = AugmentationSettings(
    spatial=1.0,
    elastic=1.0,
    mirror=("x", "y", "z"),
    **dict.fromkeys(CHANGES, 1.0),  # type: ignore[arg-type]
)
GEOMETRY = AugmentationSettings(
    spatial=1.0,
    elastic=1.0,
    mirror=("x", "y", "z"),
    **dict.fromkeys(CHANGES, 0.0),  # type: ignore[arg-type]
)


def make_case(shape: tuple[int, ...] = (20, 24, 22), labelled: bool = True) -> PreparedCase:
    labels = np.zeros(shape, np.uint8)
    labels[5:12, 6:16, 4:10] = 1
    labels[12:16, 6:16, 10:18] = 2
    foreground = {value: np.argwhere(labels == value) for value in (1, 2)} if labelled else {}
    image = labels[None].astype(np.float32)
    return PreparedCase("case", image, labels if labelled else None, (2.0, 1.0, 1.0), foreground)


@pytest.mark.parametrize("patch", [(16, 16, 16), (16, 16), (32, 32, 32)])
def test_a_batch_is_a_function_of_seed_and_step(patch: tuple[int, ...]) -> None:
    def draw(seed: int, step: int) -> torch.Tensor:
        return PatchSampler([make_case()], patch, EVERYTHING, 0.5, seed).batch(step, 3).images

    assert draw(0, 5).shape == (3, 1, *patch)
    assert torch.equal(draw(0, 5), draw(0, 5))
    assert not torch.equal(draw(0, 5), draw(0, 6))
    assert not torch.equal(draw(0, 5), draw(1, 5))
    assert torch.isfinite(draw(0, 5)).all()


def test_labels_move_with_the_image() -> None:
    batch = PatchSampler([make_case()], (16, 16, 16), GEOMETRY, 1.0, 0).batch(0, 8)
    assert batch.labels is not None
    highest = torch.nn.functional.max_pool3d(batch.images, 3, 1, 1)[:, 0]
    lowest = -torch.nn.functional.max_pool3d(-batch.images, 3, 1, 1)[:, 0]
    for value in (0.0, 1.0, 2.0):
        pure = (highest < value + 1e-3) & (lowest > value - 1e-3)  # away from interpolated borders
        assert pure.sum() > 50
        assert bool((batch.labels[pure] == value).all())


def test_unlabelled_cases_give_no_labels() -> None:
    assert PatchSampler([make_case(labelled=False)], (16, 16, 16), EVERYTHING, 0.5, 0).batch(0, 2).labels is None


def test_foreground_patches_show_every_class_in_turn() -> None:
    case = make_case((64, 64, 64))
    sampler = PatchSampler([case], (8, 8, 8), None, 1.0, 0)
    shown = [set(sampler.batch(step, 1).labels.unique().tolist()) for step in range(40)]  # type: ignore[union-attr]
    assert all(seen & {1, 2} for seen in shown)
    assert sum(1 in seen for seen in shown) > 10
    assert sum(2 in seen for seen in shown) > 10


def test_without_augmentation_a_patch_is_the_volume() -> None:
    case = make_case()
    batch = PatchSampler([case], case.image.shape[1:], None, 0.0, 0).batch(0, 1)
    assert torch.equal(batch.images[0], torch.from_numpy(case.image))


def test_identity_warp_equals_crop() -> None:
    volume = torch.randn(1, 9, 11, 10)
    labels = torch.randint(0, 3, (9, 11, 10), dtype=torch.uint8)
    centre = np.array([4.5, 5.5, 3.5])
    patch = (6, 8, 12)
    moved, mask = warp(volume, labels, centre, np.eye(3), None, patch)
    assert torch.allclose(moved, crop(volume, centre, patch), atol=1e-4)
    assert torch.equal(mask, crop(labels[None], centre, patch)[0])


def test_a_single_slice_is_not_smeared_along_its_axis() -> None:
    volume, labels = torch.ones(1, 1, 6, 6), torch.ones(1, 6, 6, dtype=torch.uint8)
    centre, patch = np.array([0.0, 2.5, 2.5]), (3, 6, 6)
    moved, mask = warp(volume, labels, centre, np.eye(3), None, patch)
    assert torch.allclose(moved, crop(volume, centre, patch), atol=1e-4)
    assert torch.equal(mask, crop(labels[None], centre, patch)[0])


def test_rotation_is_rigid_in_millimetres() -> None:
    spacing = (5.0, 1.0, 2.0)
    for seed in range(10):
        matrix = random_matrix(np.random.default_rng(seed), spacing, 30, (1.0, 1.0))
        physical = np.diag(spacing) @ matrix @ np.linalg.inv(np.diag(spacing))
        assert np.allclose(physical @ physical.T, np.eye(3), atol=1e-12)
        assert np.isclose(np.linalg.det(physical), 1)


def test_zoom_above_one_enlarges() -> None:
    image = torch.zeros(1, 21, 21, 21)
    image[0, 8:13, 8:13, 8:13] = 1
    matrix = random_matrix(np.random.default_rng(0), (1, 1, 1), 0, (1.5, 1.5))
    moved, _ = warp(image, None, np.array([10.0] * 3), matrix, None, (21, 21, 21))
    assert moved.sum() / image.sum() == pytest.approx(1.5**3, rel=0.15)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("shape", [(2, 12, 10), (1, 8, 10, 9), (1, 1, 10, 9)])
def test_intensity_changes_keep_shape_and_stay_finite(name: str, shape: tuple[int, ...]) -> None:
    image = torch.randn(shape)
    before = image.clone()
    changed = CHANGES[name](image, np.random.default_rng(1))
    assert changed.shape == image.shape
    assert torch.isfinite(changed).all()
    assert not torch.equal(changed, before)
    assert torch.equal(image, before)
    assert torch.isfinite(CHANGES[name](torch.zeros(shape), np.random.default_rng(1))).all()
