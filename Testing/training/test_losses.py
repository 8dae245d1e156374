"""The losses: MONAI's numbers where both are defined, and their own law for what is ignored, absent, or spread."""

from __future__ import annotations

import pytest
import torch
from monai.losses.dice import DiceCELoss
from monai.losses.tversky import TverskyLoss
from torch import Tensor

from mskd.training.losses import segmentation_terms
from mskd.training.settings import LossSettings


def example(dim: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(dim)
    logits = torch.randn(2, classes, *(7,) * dim, generator=stream, dtype=torch.float64)
    return logits, torch.randint(0, classes, (2, *(7,) * dim), generator=stream)


def summed(logits: Tensor, labels: Tensor, **changes: object) -> Tensor:
    return torch.stack(list(segmentation_terms(logits, labels, LossSettings.model_validate(changes)).values())).sum()


@pytest.mark.parametrize("dim", [2, 3])
def test_dice_and_cross_entropy_are_monais(dim: int) -> None:
    logits, labels = example(dim)
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, squared_pred=False)
    torch.testing.assert_close(summed(logits, labels), monai(logits, labels[:, None]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_tversky_is_monais(dim: int) -> None:
    logits, labels = example(dim)
    monai = TverskyLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, alpha=0.2, beta=0.8)
    ours = summed(logits, labels, overlap="tversky", alpha=0.2, beta=0.8, voxel_weight=0.0)
    torch.testing.assert_close(ours, monai(logits, labels[:, None]), rtol=1e-5, atol=1e-6)


def test_focal_with_gamma_zero_is_cross_entropy_and_a_larger_gamma_forgives_what_is_easy() -> None:
    logits, labels = example(3)
    ce = segmentation_terms(logits, labels, LossSettings())["ce"]
    plain, focused = (
        segmentation_terms(logits, labels, LossSettings(voxel="focal", gamma=g))["focal"].double() for g in (0.0, 2.0)
    )
    torch.testing.assert_close(plain, ce, rtol=1e-5, atol=1e-6)
    assert focused < plain


@pytest.mark.parametrize("changes", [{}, {"overlap": "tversky", "voxel": "focal"}])
def test_ignored_voxels_neither_count_nor_teach(changes: dict[str, object]) -> None:
    logits, labels = example(3)
    logits.requires_grad_()
    labels[:, :, :, 4:] = -1
    loss = summed(logits, labels, **changes)
    torch.testing.assert_close(loss, summed(logits[..., :4].contiguous(), labels[..., :4], **changes))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[..., 4:].abs().max() == 0
    assert gradient[..., :4].abs().max() > 0


def test_a_class_that_no_voxel_has_is_left_out_of_the_mean() -> None:
    logits, labels = example(3)
    logits[:, 3] = -40.0
    labels[labels == 3] = 0
    torch.testing.assert_close(summed(logits, labels), summed(logits[:, :3], labels))


@pytest.mark.parametrize("value", [0, -1])
def test_a_batch_without_any_organ_gives_a_finite_loss(value: int) -> None:
    logits, labels = example(2)
    logits.requires_grad_()
    terms = segmentation_terms(logits, torch.full_like(labels, value), LossSettings())
    assert terms["dice"] == 0
    torch.stack(list(terms.values())).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_two_hundred_classes_and_one_voxel() -> None:
    logits = torch.zeros(1, 201, 6, 6, 6, requires_grad=True)
    labels = torch.zeros(1, 6, 6, 6, dtype=torch.long)
    labels[0, 3, 3, 3] = 200
    summed(logits, labels).backward()
    assert logits.grad[0, 200, 3, 3, 3] < 0
    assert int((logits.grad[0, 200] < 0).sum()) == 1


def test_the_gradient_is_the_losss() -> None:
    logits, labels = example(2, classes=3)
    labels[0, 0] = -1
    for changes in ({}, {"overlap": "tversky"}):
        torch.autograd.gradcheck(lambda z, c=changes: summed(z, labels, **c), logits.requires_grad_())
