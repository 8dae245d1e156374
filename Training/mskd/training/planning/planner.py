"""One value after another: what the draft gives stands, and what follows from it is decided for that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from mskd.data import Dataset, Split
from mskd.training.draft import Draft
from mskd.training.planning import rules
from mskd.training.planning.budget import SECONDS_PER_GMAC, choose_budget
from mskd.training.planning.cost import Cost
from mskd.training.planning.grid import (
    FEWEST_VOXELS,
    THICK,
    WORTHWHILE,
    Cases,
    choose_dim,
    choose_orientation,
    choose_spacing,
    coarser,
    smallest_label,
)
from mskd.training.planning.measure import DataFingerprint
from mskd.training.planning.networks import RoleName, RolePlan, both_fit
from mskd.training.planning.topology import Topology, choose_patch, make_topology
from mskd.training.settings import PlanSettings, SplitSettings

NARROW, USUAL, WIDE = 4e-3, 2e-3, 1e-3
VALIDATION_SHARE, MOST_VALIDATIONS = 0.15, 10
ROLES: tuple[RoleName, ...] = ("teacher", "student")
LIMIT = 0.2
"""Distillation beside segmentation, as gradients: 0.2 to 0.5 is usual."""

CALIBRATED = {"kd": {"weight": 0.2}, "ffd": {"weight": 0.02}, "rgd": {"weight": 0.15}}
ARGUMENTS = {
    "channels": "doubled at each coarser resolution",
    "strides": "an axis is halved where its voxels are within a factor of 2 of the finest",
    "kernels": "1 across an axis while its voxels are at least twice as long as the finest",
}


@dataclass(frozen=True)
class Shape:
    """What networks see: mm along the axes of a patch, and how a median case looks on that grid.

    Args:
        slices: How many such images a median case has: 1 in 3D.
    """

    spacing: tuple[float, ...]
    case: tuple[int, ...]
    patch: tuple[int, ...]
    topology: Topology
    slices: int

    @property
    def coverage(self) -> float:
        """Share of the median case that a patch shows."""
        return prod(min(1.0, side / whole) for side, whole in zip(self.patch, self.case, strict=True))

    def saving(self, finer: Shape) -> float:
        """How many times fewer voxels a case has than on a finer grid."""
        return prod(side / fine for side, fine in zip(self.spacing, finer.spacing, strict=True))

    @property
    def voxels(self) -> int:
        """Of a median case."""
        return prod(self.case) * self.slices


class Planner:
    """Settles one value after another; the draft's own values stand, and what follows is decided for them."""

    def __init__(self, draft: Draft, dataset: Dataset) -> None:
        self.draft, self.dataset = draft, dataset
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        self.settings = PlanSettings.model_validate(draft.get("plan") or {})
        self.budget = choose_budget(self.settings.budget)

    def settle(self, key: str, value: Any, reason: str) -> Any:
        """The draft's value, or else this one."""
        given = self.draft.get(key)
        if given is not None:
            return given
        self.values[key], self.reasons[key] = value, reason
        return value

    def names(self) -> None:
        slug = re.sub(r"[^a-z0-9._-]+", "-", self.dataset.name.lower()).strip("-._")[:48] or "planned"
        self.settle("name", slug, "after the data set")
        self.settle("package.title", self.dataset.name[:100] or "Planned", "")

    def split(self) -> SplitSettings:
        patients = len({case.patient for case in self.dataset.labelled})
        for key, choose in (("validation", rules.choose_validation), ("test", rules.choose_test)):
            share, why = choose(patients)
            own = len(self.dataset.parts.get(key, ()))  # type: ignore[call-overload]
            self.settle(f"split.{key}", share, f"not used: the data set comes with {own} {key} cases" if own else why)
        given = {**(self.draft.get("split") or {})}
        planned = {key.removeprefix("split."): value for key, value in self.values.items() if key.startswith("split.")}
        return SplitSettings.model_validate({**planned, **given})

    def decide(self, facts: DataFingerprint, split: Split) -> None:
        """Everything that the training cases decide."""
        orientation = self.settle("input.orientation", *choose_orientation(facts))
        self.settle("input.normalization", *rules.choose_normalization(self.dataset, facts))
        shape, roles = self._shape(facts, Cases(facts, orientation))
        self._augmentation(facts, orientation, shape)
        for role in roles:
            self._role(role, shape, split)
        self.settle(
            "distillation.terms",
            CALIBRATED,
            "weights calibrated on the hippocampus; Testing/benchmarks/calibrate.py finds those of other data",
        )
        self.settle(
            "distillation.limit",
            LIMIT,
            "a fifth of what the labels say, as gradients: it holds down weights that suit other data",
        )
        self.settle("package.largest_component", *rules.choose_single_pieces(self.dataset, facts))

    def _shape(self, facts: DataFingerprint, cases: Cases) -> tuple[Shape, list[RolePlan]]:
        """Spacing, dimension and patch, which depend on one another and on what the networks cost."""
        spacing: tuple[float, ...]
        spacing, why = choose_spacing(cases)
        given = self.draft.get("input.spacing")
        if given is not None:
            spacing = tuple(side or median for side, median in zip(given, spacing, strict=True))
        dim, why_dim, settled = self._dim(spacing, cases.median_shape(spacing))
        shape, roles = self._fitted(spacing, dim, facts, cases)
        if not settled and spacing[0] > THICK * max(spacing[1:]) and shape.coverage < self.budget.coverage:
            dim, why_dim = 2, f"{why_dim}, and a 3D patch within the budget would show {shape.coverage:.0%} of it"
            shape, roles = self._fitted(spacing, dim, facts, cases)
        if shape.spacing != tuple(spacing)[3 - dim :]:
            shown = self._patch(spacing, dim, cases, roles)
            why = f"coarser than the median, {_mm(shown.spacing)}, of which a patch would show {shown.coverage:.0%}"
            spacing = (*spacing[: 3 - dim], *shape.spacing)
        rounded = [0.0 if axis < 3 - dim else float(f"{side:.4g}") for axis, side in enumerate(spacing)]
        if dim == 2:
            why = f"{why.split(';')[0]}; 0 keeps the slices"
        self.settle("input.spacing", rounded, f"mm, (z, y, x): {why}")
        size = " x ".join(map(str, shape.case))
        reason = f"{dim}D: {why_dim}. Shows {shape.coverage:.0%} of a median case of {size} voxels"
        self.settle("input.patch", list(shape.patch), reason)
        return shape, roles

    def _fitted(
        self, spacing: Sequence[float], dim: int, facts: DataFingerprint, cases: Cases
    ) -> tuple[Shape, list[RolePlan]]:
        """The patch, on a coarser grid where the budget would show too little of a case and that is worthwhile."""
        channels, classes = len(self.dataset.channels), len(self.dataset.labels) + 1
        roles = [RolePlan.of(self.draft, name, dim, channels, classes, self.budget) for name in ROLES]
        shape = self._patch(spacing, dim, cases, roles)
        if self.draft.get("input.spacing") is not None:
            return shape, roles
        wide = self._widened(shape, dim, facts, cases, roles)
        return (wide if wide.saving(shape) >= WORTHWHILE else shape), roles

    def _widened(
        self, shape: Shape, dim: int, facts: DataFingerprint, cases: Cases, roles: Sequence[RolePlan]
    ) -> Shape:
        """The same on a grid so coarse that a patch shows enough of a case, or that the smallest label allows."""
        while shape.coverage < self.budget.coverage:
            slices = choose_spacing(cases)[0][: 3 - dim]
            spacing = (*slices, *coarser(shape.spacing))
            if smallest_label(facts, spacing) < FEWEST_VOXELS:
                break
            shape = self._patch(spacing, dim, cases, roles)
        return shape

    def _dim(self, spacing: Sequence[float], shape: Sequence[int]) -> tuple[int, str, bool]:
        """Dimension, reason, and whether nothing may change it any more."""
        patch, spaced = self.draft.get("input.patch"), self.draft.get("input.spacing")
        if patch is not None:
            return len(patch), "as the recipe's patch is", True
        if self.settings.dim:
            return self.settings.dim, "as asked", True
        if spaced is not None and spaced[0] != 0:
            return 3, "as the recipe's spacing between slices says", True
        dim, why = choose_dim(spacing, shape)
        return dim, why, dim == 2

    def _patch(self, spacing: Sequence[float], dim: int, cases: Cases, roles: Sequence[RolePlan]) -> Shape:
        seen = tuple(spacing)[3 - dim :]
        shape = cases.median_shape(spacing)
        whole, slices = shape[3 - dim :], prod(shape[: 3 - dim])
        stages = max(role.stages for role in roles)
        patch = self.draft.get("input.patch")
        if patch is None:
            patch = choose_patch(seen, whole, stages, lambda size, topology: both_fit(roles, size, topology))
        return Shape(seen, whole, tuple(patch), make_topology(seen, patch, stages), slices)

    def _augmentation(self, facts: DataFingerprint, orientation: str, shape: Shape) -> None:
        self.settle("augmentation.rotation", *rules.choose_rotation(shape.spacing, shape.patch))
        mirror, why = rules.choose_mirror(self.dataset, facts, orientation)
        if len(shape.patch) == 2:
            mirror = [axis for axis in mirror if axis != "z"]
        mirrored = self.settle("augmentation.mirror", mirror, why)
        values = {label.value: label.name for label in self.dataset.labels}
        pairs = [[values[value] for value in pair] for pair in self.dataset.mirror_pairs]
        if pairs and "xyz"[next(i for i, letter in enumerate(orientation) if letter in "LR")] in mirrored:
            self.settle("augmentation.swap", pairs, "left and right, which trade places in the mirror")

    def _role(self, role: RolePlan, shape: Shape, split: Split) -> None:
        cost = role.cost(shape.patch, shape.topology)
        prefix, training = role.name, f"{role.name}.optimization"
        batch = self.settle(
            f"{training}.batch", role.batch(cost, len(split.train)), f"fits the budget {self.budget.name}"
        )
        self.settle(f"{prefix}.network", role.family, role.describe(cost, batch, shape.patch))
        for key, value in role.arguments(shape.topology).items():
            self.settle(f"{prefix}.arguments.{key}", value, ARGUMENTS.get(key, ""))
        steps = self.settle(f"{training}.steps", role.steps(cost, batch), self._why_steps(role, cost, batch))
        widths = role.spec(shape.topology).arguments.get("channels") or [NARROW]
        rate = NARROW if widths[0] <= 16 else USUAL if widths[0] < 32 else WIDE
        self.settle(f"{training}.learning_rate", rate, f"for {widths[0]} channels at the finest resolution")
        ema = float(f"{min(0.999, max(0.9, 1 - 10 / steps)):.3g}")
        self.settle(f"{training}.ema", ema, "averages over a tenth of the training, more or less")
        flat, covered = len(shape.patch) == 2, shape.coverage >= 0.5
        share, why = (0.33, "a patch shows most of a case anyway") if covered and not flat else (0.5, "organs are rare")
        self.settle(f"{training}.foreground", share, why)
        every, why = self._validations(steps, batch, shape, split)
        self.settle(f"{training}.validate_every", every, why)

    def _why_steps(self, role: RolePlan, cost: Cost, batch: int) -> str:
        if not role.budget.work:
            return f"what the budget {self.budget.name} gives a {role.name}"
        minutes = role.steps(cost, batch) * batch * cost.macs / 1e9 * SECONDS_PER_GMAC / 60
        work = f"{role.budget.work / 1e12:g} TMAC of forward passes"
        return f"{work}, the budget {self.budget.name} for a {role.name}: about {minutes:.0f} min on one CPU core"

    def _validations(self, steps: int, batch: int, shape: Shape, split: Split) -> tuple[int, str]:
        """As many as keep validating cheap: a training step costs three forward passes, a validation one."""
        validation = len(split.validation) * shape.voxels
        trained = 3 * steps * batch * prod(shape.patch)
        count = VALIDATION_SHARE * trained / max(validation, 1)
        count = int(min(MOST_VALIDATIONS, max(2, count)))
        return max(1, round(steps / count)), f"{count} validations of {len(split.validation)} cases"


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{side:.3g}" for side in spacing) + " mm"
