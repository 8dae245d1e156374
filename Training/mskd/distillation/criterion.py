"""The distillation terms of one run as one criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mskd.distillation.base import METHODS, Method
from mskd.distillation.context import Context
from mskd.distillation.frozen import frozen
from mskd.distillation.levels import choose_levels, feature_strides, match_grid, probe
from mskd.distillation.outputs import Outputs, Shapes, full_precision
from mskd.distillation.settings import DistillationSettings
from mskd.distillation.taps import Taps
from mskd.errors import SettingsError


class Distillation(nn.Module):
    """All terms of one run: ``lambda_kd KD + ramp(t) sum_levels (lambda_F FFD + lambda_R RGD)``, or any other methods.

    The student and the teacher are known to the criterion but are no submodules of it: ``parameters()`` and
    ``state_dict()`` hold the projections that methods learn and nothing else, ``train()`` and ``to()`` leave both
    networks alone, and the student gains neither a parameter nor a key.

    Args:
        settings: Terms, levels, ramp and regions.
        student: The network to train.
        teacher: A module from images to logits of the same size and classes; put on its device by the caller. A frozen
            copy of it is read, so that what happens to it later changes nothing.
        example: ``[N, C, *spatial]`` on the networks' device; its first item probes the shapes, in eval mode.

    Raises:
        SettingsError: an unknown method or module, or networks that do not fit one another.
    """

    def __init__(self, settings: DistillationSettings, student: nn.Module, teacher: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.settings = settings
        ours, theirs = choose_levels(student, teacher, settings.student_levels, settings.teacher_levels)
        frozen_teacher, self._teacher_layout = frozen(teacher, theirs, example.ndim - 2)
        self._student, self._teacher = Taps(student, ours), Taps(frozen_teacher, theirs)
        student_logits, student_features = probe(student, self._student, example, "student")
        teacher_logits, teacher_features = probe(frozen_teacher, self._teacher, example, "teacher")
        classes = student_logits.shape[1]
        if teacher_logits.shape[1] != classes:
            raise SettingsError(
                f"The teacher has {teacher_logits.shape[1]} classes and the student {classes}; "
                "distil between networks for the same labels."
            )
        self._student_strides = tuple(feature_strides(student, example, tensor) for tensor in student_features)
        self._teacher_strides = tuple(feature_strides(teacher, example, tensor) for tensor in teacher_features)
        self._strides = tuple(
            tuple(map(max, *pair)) for pair in zip(self._student_strides, self._teacher_strides, strict=True)
        )
        shapes = Shapes(
            dim=example.ndim - 2,
            classes=classes,
            student=tuple(tensor.shape[1] for tensor in student_features),
            teacher=tuple(tensor.shape[1] for tensor in teacher_features),
        )
        self.methods = nn.ModuleDict({name: _build(settings, name, shapes) for name in settings.terms})
        self.weights = {name: settings.term(name).weight for name in settings.terms}
        self.to(example.device)

    @property
    def levels(self) -> tuple[tuple[str, str], ...]:
        """The paired module paths (student, teacher), last decoder stage first."""
        return tuple(zip(self._student.paths, self._teacher.paths, strict=True))

    @property
    def student_module(self) -> nn.Module:
        """The network being trained."""
        return self._student.module

    def student_forward(self, image: Tensor, through: Callable[[Tensor], Any] | None = None) -> Outputs:
        """Run the student in its own mode.

        Args:
            image: ``[N, C, *spatial]``.
            through: What to call instead of the student itself, if it is wrapped (DistributedDataParallel).
        """
        logits, features = self._student.collect(through or self._student.module, image)
        return Outputs(logits, features)

    @torch.no_grad()
    def teacher_forward(self, image: Tensor) -> Outputs:
        """Run the teacher, always in eval mode and without gradients."""
        image = image.contiguous(memory_format=self._teacher_layout)
        logits, features = self._teacher.collect(self._teacher.module, image)
        return Outputs(logits, features)

    def forward(
        self, student: Outputs, teacher: Outputs, labels: Tensor | None = None, progress: float = 1.0
    ) -> dict[str, Tensor]:
        """The weighted terms by name; their sum is what distillation adds to the segmentation loss.

        Args:
            student, teacher: From ``student_forward`` and ``teacher_forward`` of the same image.
            labels: ``[N, *spatial]`` int64, or None; values outside 0..K-1 are "no label".
            progress: Part of the training that is done, 0 to 1.
        """
        active = [name for name, weight in self.weights.items() if weight > 0]
        terms = self.terms(student, teacher, labels, names=active)
        zero = torch.zeros((), device=student.logits.device)
        return {name: terms[name] * self._factor(name, progress) if name in terms else zero for name in self.weights}

    def terms(
        self, student: Outputs, teacher: Outputs, labels: Tensor | None = None, *, names: list[str] | None = None
    ) -> dict[str, Tensor]:
        """The unweighted terms by name, in float32 whatever autocast says."""
        if labels is not None and (
            labels.ndim != student.logits.ndim - 1 or labels.shape[1:] != student.logits.shape[2:]
        ):
            raise SettingsError(
                f"Labels have shape {tuple(labels.shape)}; distillation needs [N, *spatial] like the image, "
                f"whose logits are {tuple(student.logits.shape)}."
            )
        with torch.autocast(student.logits.device.type, enabled=False):
            ours = self._match(student, self._student_strides)
            theirs = self._match(teacher.detached(), self._teacher_strides)
            context = Context(
                theirs, labels, strides=self._strides, mode=self.settings.regions, n_min=self.settings.n_min
            )
            chosen = list(self.weights) if names is None else names
            return {name: self.methods[name](ours, theirs, context) for name in chosen}

    def _factor(self, name: str, progress: float) -> float:
        method = self.methods[name]
        ramped = isinstance(method, Method) and method.ramped and self.settings.ramp > 0
        return self.weights[name] * (min(1.0, progress / self.settings.ramp) if ramped else 1.0)

    def _match(self, outputs: Outputs, own: tuple[tuple[float, ...], ...]) -> Outputs:
        shape = outputs.logits.shape[2:]
        features = tuple(
            match_grid(full_precision(tensor), mine, common, shape)
            for tensor, mine, common in zip(outputs.features, own, self._strides, strict=True)
        )
        return Outputs(full_precision(outputs.logits), features)


def _build(settings: DistillationSettings, name: str, shapes: Shapes) -> Method:
    return METHODS[name](settings.term(name), shapes)
