"""The cheapest way through a volume that fits in memory: the whole of it, or the fewest windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, inf, prod

from torch import nn

from mskd.inference.memory import forward_bytes
from mskd.inference.windows import SLAB_SLICES, Plan, Shape, count_windows, divided, make_plan, smaller, times
from mskd.networks import SegmentationNetwork
from mskd.spec import Manifest

FLOAT_BYTES = 4
HALF_SHARE = 0.6
"""Memory of a forward pass in half precision, as a share of that in single: weights and sums stay single."""

OVERLAP_SHARE = 4
"""Neighbouring windows share a quarter of the patch: with windows larger than it, seams stay as faint as with half."""

SMALLEST_WINDOW = 24
HALVINGS = 2
MOST_PIECES = 8
"""Windows along one axis that are considered."""

SLICES = (16, 4, 1)
"""Slices that a 2D network takes at a time: more of them are no faster."""

COMFORTABLE = 1 << 22
"""Voxels that a processor takes at a time, on the finest grid of the network: at full resolution a chest CT of 13
million takes a tenth longer in six windows than as a whole, and three quarters of the memory; with a stem of stride 2
it would take 1.6 times as long."""

MOST_BATCHED = 8
COVERED = 0.85
"""Of the field of view of the largest training images: a network whose patch is that large has always seen where they
end, and gives other labels where it sees further than in training."""

WINDOW_DEPENDENT = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)
"""Layers whose result depends on the size of the input: such a network sees what it was trained on, windows."""


@dataclass(frozen=True)
class Estimate:
    """A plan and the bytes it is expected to need at its peak."""

    plan: Plan
    bytes: int


@dataclass(frozen=True)
class _Layout:
    """Windows of one size, without their places yet."""

    shape: Shape
    window: Shape
    overlap: Shape

    @property
    def voxels(self) -> int:
        """What goes through the network."""
        sides = zip(self.shape, self.window, self.overlap, strict=True)
        return prod(count_windows(*axis) * axis[1] for axis in sides)


class Planner:
    """Plans for one model; estimates are remembered.

    Args:
        manifest: Of the model.
        sketch: Its network on the meta device, so that an estimate computes and allocates nothing, with its logits as
            coarse as they are, which is how the engine runs it.
    """

    def __init__(self, manifest: Manifest, sketch: SegmentationNetwork) -> None:
        self._manifest = manifest
        self._sketch = sketch
        z, y, x = (1,) * (3 - manifest.dim) + sketch.logit_stride
        self._step: Shape = (z, y, x)
        z, y, x = (1,) * (3 - manifest.dim) + tuple(manifest.patch)
        self._patch: Shape = (z, y, x)
        self._fixed = _fixed_axes(manifest, sketch)
        self._known: dict[Shape, int] = {}

    @property
    def largest_view(self) -> tuple[float, float, float]:
        """Voxels (z, y, x) of a volume that a single window may show the network."""
        z, y, x = (side if fixed else inf for side, fixed in zip(self._patch, self._fixed, strict=True))
        return z, y, x

    def cheapest(
        self,
        shape: Shape,
        budget: float = inf,
        *,
        largest: float = inf,
        halved: bool = False,
        batched: bool = False,
        comfortable: float = inf,
    ) -> Estimate | None:
        """The plan that sends the fewest voxels through the network, in the largest windows.

        Args:
            shape: Voxels (z, y, x) of the prepared volume.
            budget: Bytes that it may need.
            largest: Voxels that may be in the network at a time.
            halved: Whether the network runs in half precision.
            batched: Whether windows may go through the network together, where memory is left.
            comfortable: Voxels of the largest windows to prefer, on the finest grid of the network, unless the
                smallest windows are larger.

        Returns:
            None when even the smallest windows need more.
        """
        shape = times(divided(shape, self._step), self._step)
        for layouts in self._tiers(shape):
            limit = max(comfortable * prod(self._step), min(prod(layout.window) for layout in layouts))
            order = sorted(
                layouts, key=lambda layout: (prod(layout.window) > limit, layout.voxels, -prod(layout.window))
            )
            for layout in order:
                if prod(layout.window) > largest or self._outline(shape, layout.window, halved) > budget:
                    continue
                plan = make_plan(shape, layout.window, layout.overlap, step=self._step)
                need = self.need(plan, halved)
                if need > budget:
                    continue
                if batched and not plan.whole:
                    plan = self._batched(plan, budget, largest, halved)
                return Estimate(plan, self.need(plan, halved))
        return None

    def need(self, plan: Plan, halved: bool = False) -> int:
        """Expected peak in bytes: the volume, a batch of windows in the network, and the blend of a row of windows."""
        share = HALF_SHARE if halved else 1.0
        return self._held(plan) + int(share * plan.batch * self._forward(plan.window))

    def _tiers(self, shape: Shape) -> Iterator[list[_Layout]]:
        """Windows that show the network at least what it was trained on; then, as a makeshift, less."""
        for halving in range(HALVINGS + 1):
            floor = self._floor(shape, halving)
            if self._manifest.dim == 2:
                for count in dict.fromkeys(min(count, shape[0]) for count in SLICES):
                    yield self._layouts(shape, floor, [count])
            else:
                yield self._layouts(shape, floor)

    def _floor(self, shape: Shape, halving: int) -> Shape:
        z, y, x = (max(min(side, SMALLEST_WINDOW), side >> halving) for side in self._patch)
        return smaller(shape, times(divided((z, y, x), self._step), self._step))

    def _layouts(self, shape: Shape, floor: Shape, depths: list[int] | None = None) -> list[_Layout]:
        """Every combination of a number of pieces along each axis; ``depths`` fixes the sides along z."""
        flat = 3 - self._manifest.dim
        z, y, x = (side // (2 if fixed else OVERLAP_SHARE) for side, fixed in zip(floor, self._fixed, strict=True))
        overlap = times(divided((0 if flat else z, y, x), self._step), self._step)
        multiples = (1,) * flat + self._sketch.divisor
        sides = [
            [least] if fixed else _sides(full, least, shared, multiple)
            for fixed, full, least, shared, multiple in zip(self._fixed, shape, floor, overlap, multiples, strict=True)
        ]
        sides[0] = depths or sides[0]
        return [_Layout(shape, window, overlap) for window in product(*sides)]  # type: ignore[arg-type]

    def _batched(self, plan: Plan, budget: float, largest: float, halved: bool) -> Plan:
        room = (budget - self._held(plan)) / ((HALF_SHARE if halved else 1.0) * self._forward(plan.window))
        batch = int(min(MOST_BATCHED, len(plan.starts), room, largest / prod(plan.window)))
        return replace(plan, batch=max(1, batch))

    def _held(self, plan: Plan) -> int:
        volume = len(self._manifest.channels) * prod(plan.shape)
        # A row of windows, and the slab that is being handed on.
        depth, height, width = divided((plan.window[0], *plan.shape[1:]), self._step)
        slices = 0 if plan.whole else depth + 2 * min(SLAB_SLICES, depth)
        row = (self._manifest.classes + 1) * slices * height * width
        return FLOAT_BYTES * (volume + row)

    def _outline(self, shape: Shape, window: Shape, halved: bool) -> int:
        """Somewhat less than :meth:`need` says, in proportion to the smallest window: quick for a thousand windows."""
        floor = self._floor(shape, 0)
        share = 0.8 * (HALF_SHARE if halved else 1.0) * prod(window) / prod(floor)
        return self._held(Plan(shape, window, ())) + int(share * self._forward(floor))

    def _forward(self, window: Shape) -> int:
        if window not in self._known:
            self._known[window] = forward_bytes(self._sketch, len(self._manifest.channels), window)
        return self._known[window]


def _fixed_axes(manifest: Manifest, sketch: SegmentationNetwork) -> tuple[bool, ...]:
    """Along which of z, y and x the network is to see half overlapping windows no larger than its patch.

    That is rounded up to whole logits.
    """
    flat = 3 - manifest.dim
    if any(isinstance(module, WINDOW_DEPENDENT) for module in sketch.modules()):
        return (False,) * flat + (True,) * manifest.dim
    known = manifest.training_data
    if known is None:
        return (False,) * 3
    sides = zip(manifest.patch, manifest.spacing[flat:], known.spacing[flat:], known.extent[flat:], strict=True)
    covered = (side * (step or own.low) >= COVERED * field.high for side, step, own, field in sides)
    return (False,) * flat + tuple(covered)


def _sides(full: int, least: int, shared: int, multiple: int) -> list[int]:
    """Window sides for 1, 2, 3, ... pieces of an axis, none below ``least``, each one that needs no padding."""
    sides = {full, least}
    for pieces in range(2, MOST_PIECES + 1):
        side = ceil((full + (pieces - 1) * shared) / pieces)
        side += -side % multiple
        if least <= side < full:
            sides.add(side)
    return sorted(sides)
