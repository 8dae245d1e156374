"""What every distillation method is, and the registry in which one is found by name."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from mskd.distillation.context import Context
from mskd.distillation.outputs import Outputs, Shapes
from mskd.distillation.saliency import FilterKind
from mskd.registry import Registry
from mskd.spec import Strict

Weight = Annotated[float, Field(ge=0.0, le=1e6)]


class MethodSettings(Strict):
    """What each term takes: ``weight`` multiplies it (lambda in the equations)."""

    weight: Weight = 1.0


class FilterSettings(MethodSettings):
    """The teacher's spatial filter, shared by FFD and RGD.

    Args:
        theta: Confidence under which a voxel is dropped; 0.5 keeps every voxel.
        gamma: How much more a confident voxel counts.
        filter: ``teacher`` is the method; ``random`` (the same weights at shuffled places) and ``inverted`` (the voxels
            that the teacher's filter drops) are controls; ``none`` weighs all voxels alike.
    """

    theta: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.6
    gamma: Annotated[float, Field(ge=0.0, le=10.0)] = 0.6
    filter: FilterKind = "teacher"


class Method(nn.Module):
    """One term of the distillation loss.

    A method file holds the loss as a plain function first, then a thin subclass of this with its ``Settings``.
    What a subclass learns (projections) belongs to the criterion and never to the student.

    Attributes:
        ramped: Whether the term is faded in over the first steps, as terms on features are.
        needs_features: Whether the term reads features of the teacher. One that reads its logits alone can take them
            from a cache.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    ramped: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True

    def __init__(self, settings: MethodSettings, shapes: Shapes) -> None:
        super().__init__()

    def forward(self, student: Outputs, teacher: Outputs, context: Context) -> Tensor:
        """The unweighted term, a scalar: a mean over the batch and over voxels, or over valid regions.

        Args:
            student, teacher: Full precision; the features of one level share one grid.
            context: Labels, regions and saliency maps of this batch.
        """
        raise NotImplementedError


METHODS: Registry[type[Method]] = Registry("distillation method", "mskd.distillation.methods")


def voxel_weight(settings: FilterSettings, context: Context, level: int) -> Tensor:
    """W ``[B, n]`` of a level as these settings want it; see ``Context.weight``."""
    return context.weight(level, theta=settings.theta, gamma=settings.gamma, kind=settings.filter)
