"""All terms together, held to a share of the segmentation's gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from batches import make_labels, small_network

from mskd.distillation import Distillation, DistillationSettings
from mskd.distillation.limit import EVERY, Limit

LOUD = {"kd": {"weight": 100.0}, "ffd": {"weight": 100.0}, "rgd": {"weight": 100.0}}


def norms(settings: DistillationSettings) -> tuple[float, float, float]:
    """Gradients at the last decoder stage: of the segmentation, of the terms as they are, and as they are limited."""
    student, teacher = small_network("light_unet", 2), small_network("residual_unet", 2, channels=(5, 7, 9))
    criterion = Distillation(settings, student, teacher, torch.zeros(1, 1, 16, 16))
    image, labels = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), make_labels(2, 2, 16)
    outputs, heard = criterion.student_forward(image), criterion.teacher_forward(image)
    segmentation = F.cross_entropy(outputs.logits, labels)
    terms = criterion(outputs, heard, labels)
    limited = criterion.limited(terms, segmentation, outputs)
    assert limited.keys() == terms.keys()
    losses = (segmentation, torch.stack(list(terms.values())).sum(), torch.stack(list(limited.values())).sum())
    found = [torch.autograd.grad(loss, outputs.features[0], retain_graph=True)[0] for loss in losses]
    return tuple(gradient.norm().item() for gradient in found)  # type: ignore[return-value]


@pytest.mark.parametrize("most", [0.2, 2.0])
def test_loud_terms_pull_so_hard_and_no_harder(most: float) -> None:
    segmentation, before, after = norms(DistillationSettings(terms=LOUD, limit=most))
    assert before > 10 * segmentation
    assert after == pytest.approx(most * segmentation, rel=1e-4)


def test_quiet_terms_are_left_alone() -> None:
    _, before, after = norms(DistillationSettings(terms={"kd": {"weight": 1e-4}}, limit=0.5))
    assert after == before > 0


def test_without_a_limit_nothing_changes_and_nothing_is_kept() -> None:
    _, before, after = norms(DistillationSettings(terms=LOUD))
    assert after == before
    student, teacher = small_network("light_unet", 2), small_network("light_unet", 2)
    criterion = Distillation(DistillationSettings(terms={"kd": {}}), student, teacher, torch.zeros(1, 1, 16, 16))
    assert not criterion.state_dict()


def looked(limit: Limit, step: int, taught: float = 1.0) -> float:
    """The factor of a batch whose gradients have norms that change from step to step."""
    features = torch.ones(4, requires_grad=True)
    term = taught * (1.5 + math.sin(step)) * features.sum()
    limited = limit(features.sum(), {"kd": term}, features)["kd"]
    torch.testing.assert_close(limited, limit.factor * term)
    return limit.factor


def test_a_limit_goes_on_from_its_state_as_if_there_had_been_no_stop() -> None:
    whole, first, second = (Limit(0.5) for _ in range(3))
    expected = [looked(whole, step) for step in range(5 * EVERY)]
    found = [looked(first, step) for step in range(2 * EVERY + 3)]
    second.load_state_dict(first.state_dict())
    found += [looked(second, step) for step in range(2 * EVERY + 3, 5 * EVERY)]
    assert found == expected
    assert len(set(expected)) == 5  # it looks every so often, and what it saw before counts too


def test_the_limit_follows_a_segmentation_that_falls_silent() -> None:
    """A random student answers its labels loudly, and one that sees background alone hardly at all."""
    limit = Limit(0.5)
    features = torch.ones(4, requires_grad=True)
    for batch in range(16 * EVERY):
        loud = 10.0 if batch < EVERY else 0.1
        limit(loud * features.sum(), {"kd": features.sum()}, features)
    assert limit.factor == pytest.approx(0.05, rel=0.2)


def test_terms_that_have_not_begun_to_grow_say_nothing_of_the_limit() -> None:
    limit = Limit(0.5)
    features = torch.ones(4, requires_grad=True)
    for batch in range(EVERY + 1):
        limit(features.sum(), {"ffd": (10.0 if batch else 0.0) * features.sum()}, features)
    assert limit.factor == pytest.approx(0.05)


def test_half_precision_that_overflows_is_looked_at_again() -> None:
    limit = Limit(0.5)
    features = torch.ones(4, dtype=torch.float16, requires_grad=True)
    limit(features.float().sum(), {"kd": 2.0 * features.float().sum()}, features)
    assert limit.factor == pytest.approx(0.25, rel=1e-3)


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    limit = Limit(0.5)
    before = looked(limit, 0)
    for step in range(1, 2 * EVERY):
        looked(limit, step, math.inf if step == EVERY else 1.0)
    assert limit.factor == pytest.approx(before)


def test_a_batch_without_labels_takes_the_last_factor() -> None:
    limit = Limit(0.5)
    factor = looked(limit, 0)
    features = torch.ones(4, requires_grad=True)
    terms = limit(None, {"kd": 7.0 * features.sum()}, features)
    assert float(terms["kd"].detach()) == pytest.approx(factor * 28.0)
    assert factor < 1
