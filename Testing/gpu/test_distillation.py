"""Each term of a loss, and its gradient, is on a GPU what it is on a processor."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distillation"))

from batches import Batch, make_batch, measure

from mskd.distillation import METHODS, Outputs
from mskd.training.losses import segmentation_loss
from mskd.training.settings import LossSettings


def learning(batch: Batch) -> tuple[Batch, list[torch.Tensor]]:
    """The batch whose student is asked for gradients, and what they are asked of."""
    leaves = [tensor.detach().requires_grad_() for tensor in (batch.student.logits, *batch.student.features)]
    return replace(batch, student=Outputs(leaves[0], tuple(leaves[1:]))), leaves


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("method", METHODS.names())
def test_terms_and_gradients_of_a_method(method: str, dim: int) -> None:
    batch = make_batch(dim)
    found = []
    for moved in (batch, batch.map(torch.Tensor.cuda)):
        asked, leaves = learning(moved)
        torch.manual_seed(0)
        term = measure(method, asked)
        gradients = torch.autograd.grad(term, leaves, allow_unused=True)
        found.append((term, [None if gradient is None else gradient.cpu() for gradient in gradients]))
    (term, gradients), (on_gpu, gradients_on_gpu) = found
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), term, rtol=1e-6, atol=1e-9)
    assert any(gradient is not None and bool(gradient.any()) for gradient in gradients)
    for own, other in zip(gradients, gradients_on_gpu, strict=True):
        if own is not None:
            torch.testing.assert_close(other, own, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"overlap": "tversky", "voxel": "focal"}])
@pytest.mark.parametrize("dim", [2, 3])
def test_what_a_network_is_told_about_its_labels(settings: dict[str, str], dim: int) -> None:
    batch = make_batch(dim)
    assert batch.labels is not None
    labels = batch.labels.clone()
    labels[:, :2] = -1
    found = []
    for device in ("cpu", "cuda"):
        logits = batch.student.logits.detach().to(device).requires_grad_()
        loss = segmentation_loss(logits, labels.to(device), LossSettings(**settings))  # type: ignore[arg-type]
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        found.append((loss.detach().cpu(), logits.grad.cpu()))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(other, own, rtol=1e-6, atol=1e-9)
