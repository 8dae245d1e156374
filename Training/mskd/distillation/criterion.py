"""The distillation terms of one run as one criterion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mskd.distillation.base import METHODS, Method
from mskd.distillation.context import Context
from mskd.distillation.frozen import frozen
from mskd.distillation.levels import Side, choose_levels, match_grid
from mskd.distillation.limit import Limit
from mskd.distillation.outputs import Outputs, Shapes, full_precision
from mskd.distillation.settings import DistillationSettings
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
            copy of it is read, so that what happens to it later changes nothing. None where its logits are cached.
        example: ``[N, C, *spatial]`` on the networks' device; its first item probes the shapes, in eval mode.

    Raises:
        SettingsError: an unknown method or module, no teacher, or networks that do not fit one another.
    """

    def __init__(
        self, settings: DistillationSettings, student: nn.Module, teacher: nn.Module | None, example: Tensor
    ) -> None:
        super().__init__()
        self.settings, dim = settings, example.ndim - 2
        self._teacher: Side | None = None
        if settings.teacher_logits == "cached":
            self._student = Side.of(student, (), example, "student")
        elif teacher is None:
            raise SettingsError("teacher_logits is 'online', which runs the teacher at every step; give a teacher.")
        else:
            ours, theirs = choose_levels(student, teacher, settings.student_levels, settings.teacher_levels)
            self._student = Side.of(student, ours, example, "student")
            reader, self._layout = frozen(teacher, theirs, dim)
            self._teacher = Side.of(reader, theirs, example, "teacher")
            _require_same_classes(self._teacher.classes, self._student.classes)
        self._teacher_strides = self._teacher.strides if self._teacher else ()
        self._strides = tuple(
            tuple(map(max, *pair)) for pair in zip(self._student.strides, self._teacher_strides, strict=True)
        )
        widths = self._teacher.channels if self._teacher else ()
        shapes = Shapes(dim, self._student.classes, self._student.channels, widths)
        self.methods = nn.ModuleDict({name: _build(settings, name, shapes) for name in settings.terms})
        self.weights = {name: settings.term(name).weight for name in settings.terms}
        self.limit = Limit(settings.limit) if settings.limit else None
        self.to(example.device)

    @property
    def levels(self) -> tuple[tuple[str, str], ...]:
        """The paired module paths (student, teacher), last decoder stage first; none where logits are cached."""
        return tuple(zip(self._student.taps.paths, self._teacher.taps.paths, strict=True)) if self._teacher else ()

    @property
    def student_module(self) -> nn.Module:
        """The network being trained."""
        return self._student.taps.module

    def student_forward(self, image: Tensor) -> Outputs:
        """Run the student in its own mode on an image ``[N, C, *spatial]``."""
        taps = self._student.taps
        return Outputs(*taps.collect(taps.module, image))

    @torch.no_grad()
    def teacher_forward(self, image: Tensor, cached: Tensor | None = None) -> Outputs:
        """What the teacher says of a batch, in eval mode and without gradients: read from the cache, or computed.

        Args:
            image: ``[N, C, *spatial]``.
            cached: The teacher's logits ``[N, K, *spatial]`` under the geometry of ``image``; needed where the settings
                say so, and not looked at elsewhere.
        """
        if self._teacher is None:
            if cached is None:
                raise SettingsError("teacher_logits is 'cached', but this batch comes without the teacher's logits.")
            return Outputs(cached, ())
        taps = self._teacher.taps
        return Outputs(*taps.collect(taps.module, image.contiguous(memory_format=self._layout)))

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

    def limited(self, terms: dict[str, Tensor], segmentation: Tensor | None, student: Outputs) -> dict[str, Tensor]:
        """The weighted terms, no louder beside the segmentation loss (None: no labels) than the settings allow."""
        if self.limit is None:
            return terms
        return self.limit(segmentation, terms, (*student.features, student.logits)[0])

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
        if teacher.logits.shape[2:] != student.logits.shape[2:]:
            raise SettingsError(
                f"The teacher's logits are {tuple(teacher.logits.shape)} and the student's "
                f"{tuple(student.logits.shape)}; both must be of the same image."
            )
        _require_same_classes(teacher.logits.shape[1], student.logits.shape[1])
        with torch.autocast(student.logits.device.type, enabled=False):
            ours = self._match(student, self._student.strides)
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


def _require_same_classes(teacher: int, student: int) -> None:
    if teacher != student:
        raise SettingsError(
            f"The teacher has {teacher} classes and the student {student}; distil between networks for the same labels."
        )


def _build(settings: DistillationSettings, name: str, shapes: Shapes) -> Method:
    return METHODS[name](settings.term(name), shapes)
