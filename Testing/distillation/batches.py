"""Seeded batches and small networks that several tests of this folder share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mskd.distillation import METHODS, DistillationSettings, Outputs
from mskd.distillation.context import Context
from mskd.distillation.outputs import Shapes
from mskd.networks import SegmentationNetwork, build_network
from mskd.spec import NetworkSpec

CLASSES = 3
STRIDE = 2


@dataclass(frozen=True)
class Batch:
    """Outputs of an imagined student and teacher on two levels, and the labels."""

    student: Outputs
    teacher: Outputs
    labels: Tensor | None

    def map(self, change: Any) -> Batch:
        """The batch with ``change(tensor)`` in place of every tensor; labels pass as ``[B, 1, *spatial]``."""
        labels = None if self.labels is None else change(self.labels[:, None])[:, 0]
        return replace(self, student=mapped(self.student, change), teacher=mapped(self.teacher, change), labels=labels)


def mapped(outputs: Outputs, change: Any) -> Outputs:
    return Outputs(change(outputs.logits), tuple(map(change, outputs.features)))


def make_labels(dim: int, batch: int, side: int) -> Tensor:
    """Two organs of different size that touch, elsewhere background; item 1 lacks organ 2."""
    axes = torch.meshgrid(*[torch.arange(side)] * dim, indexing="ij")
    distance = sum((axis - side * 0.45 - 0.3 * i).square() for i, axis in enumerate(axes))
    organ = (distance < (side * 0.3) ** 2).long()
    second = organ * (axes[0] > side * 0.55)
    labels = (organ + second).expand(batch, *organ.shape).clone()
    labels[1:2][labels[1:2] == 2] = 0
    return labels


def make_batch(dim: int, *, side: int = 12, channels: tuple[int, int] = (3, 4), batch: int = 2, seed: int = 0) -> Batch:
    """Noise around the class means, so that regions mean something. Level 1 has half the resolution."""
    generator = torch.Generator().manual_seed(seed)
    labels = make_labels(dim, batch, side)
    onehot = torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).double()

    def outputs(width: int) -> Outputs:
        def mix(count: int) -> Tensor:
            means = torch.randn(CLASSES, count, generator=generator, dtype=torch.float64)
            noise = torch.randn(batch, count, *[side] * dim, generator=generator, dtype=torch.float64)
            return torch.einsum("bk...,kc->bc...", onehot, means) + noise

        coarse = torch.nn.functional.interpolate(mix(width), scale_factor=1 / STRIDE, mode="area")
        return Outputs(mix(CLASSES), (mix(width), coarse))

    return Batch(outputs(channels[0]), outputs(channels[1]), labels)


def measure(method: str, batch: Batch, term: dict[str, Any] | None = None, **section: Any) -> Tensor:
    """The unweighted term of a batch."""
    settings = DistillationSettings(terms={method: term or {}}, **section)
    dim = batch.student.logits.ndim - 2
    widths = [tuple(f.shape[1] for f in outputs.features) for outputs in (batch.student, batch.teacher)]
    built = METHODS[method](settings.term(method), Shapes(dim, CLASSES, *widths)).to(batch.student.logits.device)
    context = Context(
        batch.teacher,
        batch.labels,
        strides=((1.0,) * dim, (float(STRIDE),) * dim),
        mode=settings.regions,
        n_min=settings.n_min,
    )
    return built(batch.student, batch.teacher, context)


def small_network(
    name: str, dim: int, *, channels: tuple[int, ...] = (4, 6, 8), **arguments: Any
) -> SegmentationNetwork:
    """A network of a few thousand weights with seeded weights."""
    torch.manual_seed(7)
    settings = {"dim": dim, "in_channels": 1, "classes": CLASSES, "channels": list(channels), **arguments}
    return build_network(NetworkSpec(name=name, arguments=settings))
