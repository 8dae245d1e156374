"""What holds for every distillation method, in 2D and in 3D."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import Batch, make_batch, mapped, measure

from mskd.distillation import METHODS, Outputs

DIMS = (2, 3)
LAWFUL = [(method, dim) for method in METHODS.names() for dim in DIMS]
# Parts and rings know where a region ends; a tiled volume moves its ends, so there the law is about class nodes.
TILED = {"rgd": {"nodes": ["class"], "background": "all"}}
# A ring is 2 grid voxels wide whatever their size, and a finer grid cuts nearer to the centroid.
REFINED = {"rgd": {"nodes": ["class", "patch"], "background": "all"}}
# Methods whose loss is not a distance to the teacher's outputs, and so need not vanish when student equals teacher.
NOT_ZERO: frozenset[str] = frozenset()

every = pytest.mark.parametrize(("method", "dim"), LAWFUL)


def equal(batch: Batch) -> Batch:
    """The batch with a student that says exactly what the teacher says."""
    return replace(batch, student=batch.teacher)


@every
def test_zero_when_the_student_equals_the_teacher(method, dim):
    batch = make_batch(dim)
    assert measure(method, batch) > 1e-3
    if method not in NOT_ZERO:
        assert measure(method, equal(batch)).abs() < 1e-7


@every
def test_never_negative(method, dim):
    for seed in range(5):
        assert measure(method, make_batch(dim, seed=seed)) >= 0


@every
def test_a_duplicated_batch_changes_nothing(method, dim):
    batch = make_batch(dim)
    twice = batch.map(lambda tensor: torch.cat([tensor, tensor]))
    torch.testing.assert_close(measure(method, twice), measure(method, batch))


@every
def test_a_tiled_volume_changes_nothing(method, dim):
    batch, term = make_batch(dim), TILED.get(method)
    tiled = batch.map(lambda tensor: torch.cat([tensor, tensor], dim=-1))
    torch.testing.assert_close(measure(method, tiled, term), measure(method, batch, term), rtol=1e-5, atol=1e-6)


@every
def test_a_finer_sampling_changes_nothing(method, dim):
    def refine(tensor):
        for axis in range(2, 2 + dim):
            tensor = tensor.repeat_interleave(2, dim=axis)
        return tensor

    # Refined once, labels and logits are constant within each voxel of the coarser level.
    batch, term = make_batch(dim, side=8).map(refine), REFINED.get(method)
    torch.testing.assert_close(
        measure(method, batch.map(refine), term), measure(method, batch, term), rtol=1e-5, atol=1e-6
    )


@every
def test_items_do_not_see_one_another(method, dim):
    def loss_and_gradient(batch):
        given = [tensor.clone().requires_grad_() for tensor in (batch.student.logits, *batch.student.features)]
        loss = measure(method, replace(batch, student=Outputs(given[0], tuple(given[1:]))))
        found = torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True)
        return loss.detach()[None], *found

    batch = make_batch(dim)
    alone = [loss_and_gradient(batch.map(lambda tensor, i=i: tensor[i : i + 1])) for i in range(2)]
    for found, parts in zip(loss_and_gradient(batch), zip(*alone, strict=True), strict=True):
        expected = torch.cat(parts).mean(0, keepdim=True) if found.ndim == 1 else torch.cat(parts) / 2
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@every
@pytest.mark.parametrize("labels", ["absent class", "no foreground", "one voxel", "all ignored", "unlabelled"])
@pytest.mark.parametrize("regions", ["mask", "saliency", "hybrid"])
def test_finite_with_finite_gradients_whatever_the_labels_hold(method, dim, labels, regions):
    batch = make_batch(dim)
    changed = torch.zeros_like(batch.labels)
    if labels == "absent class":
        changed = batch.labels.clamp(max=1)
    elif labels == "one voxel":
        changed.view(2, -1)[:, 5] = 2
    elif labels == "all ignored":
        changed = torch.full_like(batch.labels, 255)
    _assert_finite(method, replace(batch, labels=None if labels == "unlabelled" else changed), regions=regions)


@every
def test_finite_where_the_features_have_no_contrast(method, dim):
    batch = make_batch(dim)
    for level in (0.0, -1.0, 3.0, 1e4):
        flat = mapped(batch.student, lambda tensor, level=level: torch.full_like(tensor, level))
        _assert_finite(method, replace(batch, student=flat))
        _assert_finite(method, replace(batch, teacher=mapped(batch.teacher, lambda t, v=level: torch.full_like(t, v))))


@every
def test_gradients_reach_the_student_and_are_right(method, dim):
    batch = make_batch(dim, side=6, channels=(2, 3))
    inputs = [tensor.clone().requires_grad_() for tensor in (batch.student.logits, *batch.student.features)]

    def loss(logits, *features):
        return measure(method, replace(batch, student=Outputs(logits, features)))

    gradients = torch.autograd.grad(loss(*inputs), inputs, allow_unused=True)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    # Fast mode compares along random directions: every input takes part at the cost of a few evaluations.
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True, atol=1e-5)


def _assert_finite(method: str, batch: Batch, **section: str) -> None:
    inputs = [tensor.float().requires_grad_() for tensor in (batch.student.logits, *batch.student.features)]
    batch = replace(
        batch, student=Outputs(inputs[0], tuple(inputs[1:])), teacher=mapped(batch.teacher, torch.Tensor.float)
    )
    loss = measure(method, batch, **section)
    assert loss.isfinite()
    if loss.requires_grad:
        for gradient in torch.autograd.grad(loss, inputs, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()
