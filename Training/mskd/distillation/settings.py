"""The section ``[distillation]`` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mskd.distillation.base import METHODS, MethodSettings
from mskd.distillation.context import RegionMode
from mskd.errors import SettingsError
from mskd.spec import Strict, validate


class DistillationSettings(Strict):
    """Which terms, on which levels, with which regions.

    Args:
        terms: Method name -> its settings (``weight`` and the method's own). The default, kd + ffd + rgd, is MSKD.
            After validation every method's defaults are filled in, so that a saved run shows all of them.
        student_levels, teacher_levels: Module paths to take features from, pair by pair, last decoder stage first.
            Default: the last decoder stage and one at stride 4 to 8.
        ramp: Part of the training over which terms on features grow from 0 to their weight.
        limit: How many times as hard as segmentation all terms together may pull on the student (see ``Limit``); 0 sets
            no limit.
        regions: ``mask``, ``saliency`` or ``hybrid``: see ``Context``.
        n_min: Grid voxels a region needs to count as present.
        teacher_logits: ``online`` runs the teacher at every step; ``cached`` asks it once for every whole case, and
            takes along what it said through each crop, rotation and mirroring of the image. Features are never cached:
            those of a mirrored image are not the mirrored features.
    """

    terms: Annotated[dict[str, dict[str, Any]], Field(min_length=1, validate_default=True)] = {
        "kd": {},
        "ffd": {},
        "rgd": {},
    }
    student_levels: tuple[str, ...] = ()
    teacher_levels: tuple[str, ...] = ()
    ramp: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    limit: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    regions: RegionMode = "hybrid"
    n_min: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    teacher_logits: Literal["online", "cached"] = "online"

    @field_validator("terms")
    @classmethod
    def _complete(cls, terms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: _settings(name, given).model_dump(mode="json") for name, given in terms.items()}

    @model_validator(mode="after")
    def _pairs(self) -> DistillationSettings:
        if self.student_levels and self.teacher_levels and len(self.student_levels) != len(self.teacher_levels):
            raise ValueError("student_levels and teacher_levels are pairs; give both the same number of modules")
        return self

    @model_validator(mode="after")
    def _needs_no_features_of_a_cache(self) -> DistillationSettings:
        needing = [name for name in self.terms if METHODS[name].needs_features]
        if self.teacher_logits == "cached" and needing:
            raise ValueError(
                f"teacher_logits is 'cached', but the terms {needing} read the teacher's features, which are never "
                "cached; leave these terms out, or set teacher_logits to 'online'"
            )
        return self

    def term(self, name: str) -> MethodSettings:
        """The validated settings of one term."""
        return _settings(name, self.terms[name])


def _settings(name: str, given: dict[str, Any]) -> MethodSettings:
    return validate(METHODS[name].Settings, given, source=f"terms.{name}", error=SettingsError)
