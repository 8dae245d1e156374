"""A student that hears only the teacher, and no label, comes to say what the teacher says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from batches import make_labels, small_network

from mskd.distillation import METHODS, Distillation, DistillationSettings

SIDE, STEPS = 12, 90


def images(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Two organs of similar brightness under noise."""
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed))
    return (torch.tensor([0.0, 1.5, 2.5])[labels] + 0.4 * noise)[:, None]


def train(network: torch.nn.Module, loss, steps: int, extra=()) -> None:
    optimizer = torch.optim.Adam([*network.parameters(), *extra], lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()


@pytest.fixture(scope="module", params=[2, 3])
def taught(request):
    """A teacher that has learnt the blobs, with the data it learnt from."""
    labels = make_labels(request.param, 2, SIDE)
    teacher = small_network("residual_unet", request.param, channels=(6, 8, 10))
    train(teacher, lambda step: F.cross_entropy(teacher(images(labels, step)), labels), 40)
    return teacher.eval(), labels


def distance(criterion: Distillation, labels: torch.Tensor) -> dict[str, float]:
    image = images(labels, 999)
    criterion.student_module.eval()
    with torch.no_grad():
        student, teacher = criterion.student_forward(image), criterion.teacher_forward(image)
        terms = {name: term.item() for name, term in criterion.terms(student, teacher, labels).items()}
    criterion.student_module.train()
    agreement = (student.logits.argmax(1) == teacher.logits.argmax(1)).float().mean().item()
    return {**terms, "agreement": agreement}


def distil(taught, terms: dict) -> tuple[dict[str, float], dict[str, float]]:
    teacher, labels = taught
    student = small_network("light_unet", labels.ndim - 1)
    criterion = Distillation(DistillationSettings(terms=terms, ramp=0.0), student, teacher, images(labels, 0))

    def loss(step: int) -> torch.Tensor:
        image = images(labels, step)
        return sum(criterion(criterion.student_forward(image), criterion.teacher_forward(image), None).values())

    with torch.no_grad():
        for step in range(5):  # settle the running statistics, so that "before" is a fair figure
            student(images(labels, step))
    before = distance(criterion, labels)
    train(student, loss, STEPS, criterion.parameters())
    return before, distance(criterion, labels)


def test_mskd_alone_teaches_an_unlabelled_student(taught):
    before, after = distil(taught, {"kd": {}, "ffd": {"weight": 0.03}, "rgd": {"weight": 0.01}})
    assert 1 - after["agreement"] < 0.25 * (1 - before["agreement"])
    assert all(after[name] < 0.5 * before[name] for name in ("kd", "ffd", "rgd"))


@pytest.mark.parametrize("method", METHODS.names())
def test_each_method_alone_nears_the_teacher(taught, method):
    before, after = distil(taught, {method: {}})
    assert after[method] < 0.6 * before[method]
