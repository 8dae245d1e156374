"""Weights from gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from batches import make_labels, small_network

from mskd.distillation import Distillation, DistillationSettings, calibrate
from mskd.errors import SettingsError


@pytest.fixture
def criterion() -> Distillation:
    student, teacher = small_network("light_unet", 2), small_network("residual_unet", 2, channels=(5, 7, 9))
    return Distillation(DistillationSettings(), student, teacher, torch.zeros(1, 1, 16, 16))


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed)), make_labels(2, 2, 16)


def norms(criterion: Distillation, weights: dict[str, float]) -> dict[str, float]:
    """Norms of the gradients at the last decoder stage: segmentation, each weighted term, and their sum."""
    image, labels = batch(0)
    student, teacher = criterion.student_forward(image), criterion.teacher_forward(image)
    terms = {name: weights[name] * term for name, term in criterion.terms(student, teacher, labels).items()}
    losses = {"seg": F.cross_entropy(student.logits, labels), **terms, "all": sum(terms.values())}
    return {
        name: torch.autograd.grad(loss, student.features[0], retain_graph=True)[0].norm().item()
        for name, loss in losses.items()
    }


@pytest.mark.parametrize("target", [0.2, 0.5])
def test_the_weights_reach_the_ratio_with_equal_shares(criterion, target):
    result = calibrate(criterion, F.cross_entropy, [batch(0)], target=target)
    measured = norms(criterion, result.weights)
    assert measured["all"] / measured["seg"] == pytest.approx(target, rel=1e-3)
    assert measured["ffd"] == pytest.approx(measured["rgd"], rel=1e-3)
    assert measured["kd"] == pytest.approx(measured["rgd"], rel=1e-3)


def test_several_batches_are_one_larger_one(criterion):
    once = calibrate(criterion, F.cross_entropy, [batch(0)])
    twice = calibrate(criterion, F.cross_entropy, [batch(0), batch(0)])
    assert twice.weights == pytest.approx(once.weights, rel=1e-4)


def test_nothing_is_left_changed(criterion):
    student = criterion.student_module
    before = {name: value.clone() for name, value in student.state_dict().items()}
    torch.manual_seed(5)
    calibrate(criterion, F.cross_entropy, [batch(1), batch(2)])
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert drawn == torch.rand(1)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(weight.grad is None for weight in student.parameters())
    assert student.training


def test_a_silent_term_is_named(criterion):
    image, labels = batch(0)
    with pytest.raises(SettingsError, match=r"\['rgd'\] have no gradient at 'decoder.1'"):
        calibrate(criterion, F.cross_entropy, [(image, torch.zeros_like(labels))])


def test_no_batch_and_no_target_are_refused(criterion):
    with pytest.raises(SettingsError, match="no batch"):
        calibrate(criterion, F.cross_entropy, [])
    with pytest.raises(SettingsError, match="target is 0"):
        calibrate(criterion, F.cross_entropy, [batch(0)], target=0)
