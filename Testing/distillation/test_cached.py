"""Distilling from logits that a teacher gave before."""

from __future__ import annotations

import pytest
import torch
from batches import make_batch, make_labels, measure, small_network

from mskd.distillation import METHODS, Distillation, DistillationSettings, Outputs
from mskd.errors import SettingsError

FROM_LOGITS = [name for name in METHODS.names() if not METHODS[name].needs_features]
CACHED = {"terms": {name: {} for name in FROM_LOGITS}, "teacher_logits": "cached"}


def make_criterion(dim: int = 2) -> tuple[Distillation, torch.Tensor]:
    image = torch.randn(2, 1, *[16] * dim, generator=torch.Generator().manual_seed(1))
    return Distillation(DistillationSettings(**CACHED), small_network("light_unet", dim), None, image), image


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("method", METHODS.names())
def test_a_method_reads_features_exactly_if_it_says_so(method, dim):
    batch = make_batch(dim)
    expected = measure(method, batch)
    student, teacher = (torch.zeros_like(batch.student.features[0]), torch.zeros_like(batch.teacher.features[0]))
    blind = [Outputs(side.logits, (flat,)) for side, flat in ((batch.student, student), (batch.teacher, teacher))]
    same = torch.equal(measure(method, type(batch)(*blind, batch.labels)), expected)
    assert same != METHODS[method].needs_features


@pytest.mark.parametrize("dim", [2, 3])
def test_cached_logits_give_the_loss_and_the_gradient_of_the_teacher_online(dim):
    cached, image = make_criterion(dim)
    teacher, labels = small_network("residual_unet", dim, channels=(5, 7, 9)), make_labels(dim, 2, 16)
    online = Distillation(DistillationSettings(terms=CACHED["terms"]), cached.student_module, teacher, image)
    heard = online.teacher_forward(image)
    results = []
    for criterion, outputs in ((online, heard), (cached, cached.teacher_forward(image, heard.logits.half()))):
        loss = sum(criterion(criterion.student_forward(image), outputs, labels).values())
        results.append((loss.detach(), *torch.autograd.grad(loss, tuple(criterion.student_module.parameters()))))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-3 * float(expected.abs().max()))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-3, atol=1e-6)


def test_no_teacher_is_run_or_tapped():
    criterion, image = make_criterion()
    assert criterion.levels == ()
    assert criterion.student_forward(image).features == ()
    assert not list(criterion.parameters())


def test_what_is_missing_or_does_not_fit_gets_a_sentence():
    criterion, image = make_criterion()
    student = criterion.student_forward(image)
    with pytest.raises(SettingsError, match="comes without the teacher's logits"):
        criterion.teacher_forward(image)
    with pytest.raises(SettingsError, match="teacher has 4 classes and the student 3"):
        criterion(student, criterion.teacher_forward(image, torch.zeros(2, 4, 16, 16)))
    with pytest.raises(SettingsError, match="both must be of the same image"):
        criterion(student, criterion.teacher_forward(image, torch.zeros(2, 3, 16, 15)))
    with pytest.raises(SettingsError, match=r"'online', .*give a teacher"):
        Distillation(DistillationSettings(), criterion.student_module, None, image)
