"""Widths, depth and kernels of a teacher or student, and what they cost, for a patch that is still being chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mskd.errors import SettingsError
from mskd.networks import NETWORKS
from mskd.networks.unet import UNetArguments
from mskd.spec import NetworkSpec, validate
from mskd.training.draft import Draft
from mskd.training.planning.budget import SECONDS_PER_GMAC, Budget, RoleBudget
from mskd.training.planning.cost import Cost, network_cost
from mskd.training.planning.topology import Topology

SMALLEST_BATCH = {2: 4, 3: 2}
"""By dimension: batch statistics need more than one patch, and a slice shows less than a volume."""
LARGEST_BATCH = 16
RoleName = Literal["teacher", "student"]
FAMILIES: dict[RoleName, str] = {"teacher": "residual_unet", "student": "light_unet"}


@dataclass(frozen=True)
class RolePlan:
    """One network: what the recipe says of it, and what the budget allows.

    Args:
        given: Arguments that the recipe fixes.
    """

    name: RoleName
    family: str
    given: dict[str, Any]
    decided: dict[str, int]
    budget: RoleBudget
    memory: float

    @classmethod
    def of(cls, draft: Draft, name: RoleName, dim: int, channels: int, classes: int, budget: Budget) -> RolePlan:
        """Raises: SettingsError: arguments that the network does not take."""
        family = draft.get(f"{name}.network") or FAMILIES[name]
        given = draft.get(f"{name}.arguments") or {}
        decided = {"dim": dim, "in_channels": channels, "classes": classes}
        clash = sorted(decided.keys() & given.keys())
        if clash:
            raise SettingsError(f"[{name}.arguments] sets {clash}, which the data decide; remove it from the recipe.")
        plan = cls(name, family, given, decided, budget.role(name), budget.memory)
        if plan.is_unet:
            stages = len(given.get("channels") or given.get("strides") or given.get("kernels") or ()) or 2
            complete = {"channels": plan.widths(stages), **decided, **given}
            validate(NETWORKS[family].Arguments, complete, source=f"[{name}.arguments]", error=SettingsError)
        return plan

    @property
    def is_unet(self) -> bool:
        """Whether the family takes channels, strides and kernels, which alone are planned."""
        return issubclass(NETWORKS[self.family].Arguments, UNetArguments)

    @property
    def stages(self) -> int:
        """Most resolutions: as many as the recipe gives, or the budget allows."""
        given = (self.given.get(name) for name in ("channels", "strides", "kernels"))
        return next((len(value) for value in given if value), self.budget.stages)

    def widths(self, stages: int) -> list[int]:
        flat = self.decided["dim"] == 2
        width, widest = self.budget.width[flat], self.budget.widest[flat]
        return [min(widest, width << depth) for depth in range(stages)]

    def arguments(self, topology: Topology) -> dict[str, Any]:
        """The planned arguments, without those that the recipe gives."""
        if not self.is_unet:
            return {}
        stages = min(self.stages, len(topology.strides))
        if any(self.given.get(name) for name in ("channels", "strides", "kernels")):
            stages = self.stages  # the recipe's own depth, whatever the patch
        flat = (1,) * self.decided["dim"]
        planned: dict[str, Any] = {"channels": self.widths(stages)}
        strides = [*topology.strides, *(flat for _ in range(stages))][:stages]
        kernels = [*topology.kernels, *(topology.kernels[-1] for _ in range(stages))][:stages]
        planned["strides"] = [list(step) for step in strides]
        if any(side == 1 for kernel in kernels for side in kernel):
            planned["kernels"] = [list(kernel) for kernel in kernels]
        return {key: value for key, value in planned.items() if key not in self.given}

    def spec(self, topology: Topology) -> NetworkSpec:
        return NetworkSpec(name=self.family, arguments={**self.decided, **self.arguments(topology), **self.given})

    def cost(self, patch: Sequence[int], topology: Topology) -> Cost:
        return network_cost(self.spec(topology), patch)

    @property
    def smallest_batch(self) -> int:
        return SMALLEST_BATCH[self.decided["dim"]]

    def fits(self, patch: Sequence[int], topology: Topology) -> bool:
        """Whether the smallest batch of such patches fits the memory, and the fewest steps the work."""
        cost = self.cost(patch, topology)
        work = cost.macs * self.smallest_batch * self.budget.steps[0]
        return cost.memory(self.smallest_batch) <= self.memory and (not self.budget.work or work <= self.budget.work)

    def batch(self, cost: Cost, cases: int) -> int:
        """As many patches as memory and work allow for the wanted steps; never more than there are cases."""
        by_work = self.budget.work / (cost.macs * self.budget.steps[1]) if self.budget.work else LARGEST_BATCH
        batch = int(max(self.smallest_batch, min(by_work, LARGEST_BATCH, cases)))
        while batch > self.smallest_batch and cost.memory(batch) > self.memory:
            batch -= 1
        return batch

    def steps(self, cost: Cost, batch: int) -> int:
        """What the work leaves time for, in hundreds."""
        fewest, wanted, most = self.budget.steps
        steps = self.budget.work / (cost.macs * batch) if self.budget.work else wanted
        return round(min(most, max(fewest, steps)) / 100) * 100

    def describe(self, cost: Cost, batch: int, patch: Sequence[int]) -> str:
        """Weights, arithmetic and memory, and what a step takes on a CPU where the budget thinks of one."""
        size = " x ".join(map(str, patch))
        time = (
            f" and about {cost.macs * batch / 1e9 * SECONDS_PER_GMAC:.2g} s on one CPU core" if self.budget.work else ""
        )
        return (
            f"{cost.parameters:,} weights; {cost.macs / 1e9:.2f} GMAC for a patch of {size}; a step of {batch} takes "
            f"{cost.memory(batch) / 1e9:.2g} GB{time}"
        )


def both_fit(roles: Sequence[RolePlan], patch: tuple[int, ...], topology: Topology) -> bool:
    return all(role.fits(patch, topology) for role in roles)
