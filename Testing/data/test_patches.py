"""Patches: the same whoever draws them, aligned with their labels, left and right told apart."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from mskd.data.intensity import CHANGES
from mskd.data.patches import Batch, PatchSampler, augment
from mskd.data.prepared import IGNORE, PreparedCase
from mskd.training.settings import AugmentationSettings

SILENT = dict.fromkeys(CHANGES, 0.0)
EVERYTHING = AugmentationSettings(
    spatial=1.0,
    elastic=1.0,
    mirror=("x", "y", "z"),
    **dict.fromkeys(CHANGES, 1.0),  # type: ignore[arg-type]
)
GEOMETRY = AugmentationSettings(spatial=1.0, elastic=1.0, mirror=("x", "y", "z"), **SILENT)  # type: ignore[arg-type]
MIRROR = AugmentationSettings(spatial=0.0, mirror=("x",), **SILENT)  # type: ignore[arg-type]
TURNED = AugmentationSettings(spatial=1.0, rotation=5.0, mirror=("x",), **SILENT)  # type: ignore[arg-type]


def make_case(shape: tuple[int, ...] = (20, 24, 22), labelled: bool = True, channels: int = 1) -> PreparedCase:
    labels = np.zeros(shape, np.uint8)
    labels[5:12, 6:16, 4:10] = 1
    labels[12:16, 6:16, 10:18] = 2
    foreground = {value: np.argwhere(labels == value) for value in (1, 2)} if labelled else {}
    image = np.repeat(labels[None].astype(np.float32), channels, 0)
    return PreparedCase("case", image, labels if labelled else None, (2.0, 1.0, 1.0), foreground)


def drawn(sampler: PatchSampler, step: int, size: int, first: int = 0) -> Batch:
    return augment(sampler.draw(step, range(first, first + size)))


@pytest.mark.parametrize("patch", [(16, 16, 16), (17, 13), (32, 33, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_is_a_function_of_seed_step_and_index(patch: tuple[int, ...], channels: int) -> None:
    def sampler(seed: int) -> PatchSampler:
        return PatchSampler([make_case(channels=channels)], patch, EVERYTHING, 0.5, seed)

    batch = drawn(sampler(0), 5, 3)
    assert batch.images.shape == (3, channels, *patch)
    assert torch.isfinite(batch.images).all()
    for index in range(3):
        alone = augment(pickle.loads(pickle.dumps(sampler(0).draw(5, range(index, index + 1)))))
        assert torch.equal(batch.images[index], alone.images[0])
        assert torch.equal(batch.labels[index], alone.labels[0])  # type: ignore[index]
    assert not torch.equal(batch.images[0], batch.images[1])
    assert not torch.equal(batch.images, drawn(sampler(0), 6, 3).images)
    assert not torch.equal(batch.images, drawn(sampler(1), 5, 3).images)


@pytest.mark.parametrize("patch", [(45, 67, 71), (301, 307)])
def test_a_sample_does_not_depend_on_threads(patch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 50, 310, 310), dtype=np.float32)
    case = PreparedCase("case", image, (image[0] > 0).astype(np.uint8), (1.0, 1.0, 1.0), {})
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(drawn(PatchSampler([case], patch, EVERYTHING, 0.0, 0), 0, 2))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0].images, other.images)
        assert torch.equal(results[0].labels, other.labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("patch", [(16, 16, 16), (24, 16)])
def test_labels_move_with_the_image(patch: tuple[int, ...]) -> None:
    batch = drawn(PatchSampler([make_case()], patch, GEOMETRY, 1.0, 0), 0, 12)
    assert batch.labels is not None
    pool = torch.nn.functional.max_pool3d if len(patch) == 3 else torch.nn.functional.max_pool2d
    highest, lowest = pool(batch.images, 3, 1, 1)[:, 0], -pool(-batch.images, 3, 1, 1)[:, 0]
    for value in (0.0, 1.0, 2.0):
        pure = (highest < value + 1e-3) & (lowest > value - 1e-3)  # away from interpolated borders
        assert pure.sum() > 50
        assert bool((batch.labels[pure] == value).all())


def test_unlabelled_cases_give_no_labels() -> None:
    sampler = PatchSampler([make_case(labelled=False)], (16, 16, 16), EVERYTHING, 0.5, 0)
    assert drawn(sampler, 0, 2).labels is None


def test_foreground_patches_show_every_class_in_turn() -> None:
    sampler = PatchSampler([make_case((64, 64, 64))], (8, 8, 8), None, 1.0, 0)
    shown = [set(drawn(sampler, step, 1).labels.unique().tolist()) for step in range(40)]  # type: ignore[union-attr]
    assert all(seen & {1, 2} for seen in shown)
    assert sum(1 in seen for seen in shown) > 10
    assert sum(2 in seen for seen in shown) > 10


def test_without_augmentation_a_patch_is_the_volume() -> None:
    case = make_case()
    batch = drawn(PatchSampler([case], case.image.shape[1:], None, 0.0, 0), 0, 1)
    assert torch.equal(batch.images[0], torch.from_numpy(case.image))


def test_samples_that_are_not_moved_are_exact_crops() -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 12, 13, 14), dtype=np.float32)
    case = PreparedCase("case", image, None, (1.0, 1.0, 1.0), {})
    images = drawn(PatchSampler([case], (6, 20, 7), MIRROR, 0.0, 0), 0, 8).images
    known = set(np.round(image.ravel(), 5).tolist()) | {0.0}
    assert set(np.round(images.numpy().ravel(), 5).tolist()) <= known
    assert (images == 0).any()  # the patch is larger than the volume along y


@pytest.mark.parametrize("settings", [MIRROR, TURNED])
def test_mirroring_left_and_right_swaps_their_labels_and_logits(settings: AugmentationSettings) -> None:
    """Label 1 lies left of label 2 in the case, so it must in every patch, mirrored or not."""
    labels = np.zeros((10, 20, 21), np.uint8)
    labels[2:8, 4:16, 2:8], labels[2:8, 4:16, 12:19] = 1, 2
    logits = 5 * (labels == np.arange(3)[:, None, None, None]).astype(np.float16)
    case = PreparedCase("case", labels[None].astype(np.float32), labels, (1.0, 1.0, 1.0), {}, logits)
    batch = drawn(PatchSampler([case], labels.shape, settings, 0.0, 0, swap=[(1, 2)]), 0, 12)
    assert batch.labels is not None
    assert batch.teacher_logits is not None
    mirrored = 0
    for image, mask, taught in zip(batch.images[:, 0], batch.labels, batch.teacher_logits, strict=True):
        left, right = ((mask == value).nonzero()[:, 2].float().mean() for value in (1, 2))
        assert left < right - 5
        mirrored += int(image[mask == 1].mean() > 1.5)
        sure = taught.max(0).values > 4.9
        assert sure.sum() > 500
        assert torch.equal(taught.argmax(0)[sure], mask[sure])
    assert 2 <= mirrored <= 10


@pytest.mark.parametrize("settings", [None, MIRROR, GEOMETRY])
def test_unknown_voxels_stay_unknown(settings: AugmentationSettings | None) -> None:
    case = make_case((32, 32, 32))
    labels = case.labels
    assert labels is not None
    labels[:, :16] = IGNORE
    case.image[0] = labels == IGNORE
    batch = drawn(PatchSampler([case], (16, 16, 16), settings, 0.0, 0), 0, 6)
    assert batch.labels is not None
    assert batch.labels.min() == -1
    assert batch.labels.max() <= 2
    sure = (batch.images[:, 0] - 0.5).abs() > 0.02
    assert torch.equal((batch.labels == -1)[sure], (batch.images[:, 0] > 0.5)[sure])


def test_a_batch_of_thick_slices_keeps_them_apart() -> None:
    """Slices 5 times as thick as their voxels are never mixed: each constant slice stays constant."""
    image = np.broadcast_to(np.arange(1, 13, dtype=np.float32)[:, None, None], (12, 40, 40))[None].copy()
    case = PreparedCase("case", image, None, (5.0, 1.0, 1.0), {})
    settings = AugmentationSettings(
        spatial=1.0,
        rotation=180.0,
        low_resolution=1.0,
        blur=1.0,
        noise=0.0,
        contrast=0.0,
        brightness=0.0,
        gamma=0.0,
        gamma_inverted=0.0,
    )
    middle = drawn(PatchSampler([case], (6, 16, 16), settings, 0.0, 0), 0, 6).images[:, 0, :, 6:10, 6:10]
    assert torch.allclose(middle, middle[..., :1, :1].round().expand_as(middle), atol=1e-3)
