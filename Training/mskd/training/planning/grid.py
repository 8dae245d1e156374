"""The grid on which networks see the data: orientation, spacing, 2D or 3D, and how large the cases are on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mskd.training.planning.measure import DataFingerprint

ANISOTROPIC = 3.0
"""An axis this many times coarser than the others is treated on its own (nnU-Net's threshold)."""
THICK = 5.0
"""Slices this many times as thick as their voxels are wide are seen one by one where a patch would show too little: on
CHAOS (6.2 times, 6 % of a case) a 2D student reached a test Dice of 0.76 with the work that gave a 3D one 0.55."""
FEWEST_SLICES = 12
"""With fewer slices a 3D network could halve them once at most."""
FEWEST_VOXELS = 60
"""A label keeps at least as many voxels (in the median case) on a coarser grid."""
WORTHWHILE = 2.0
"""A coarser grid must save this factor of voxels, or the loss of detail buys nothing (as in nnU-Net)."""
AXES = "SPL"  # of arrays (z, y, x) turned to LPS: the patient direction in which each grows
COARSEST_FIRST = {0: "LPS", 1: "LSP", 2: "PSL"}


class Cases:
    """Shapes and spacings of the training cases as arrays ``[case, (z, y, x)]``, turned to an orientation."""

    def __init__(self, facts: DataFingerprint, orientation: str) -> None:
        opposite = dict(zip("SIPALR", "SSPPLL", strict=True))
        order = [AXES.index(opposite[letter]) for letter in reversed(orientation)]
        self.shapes = np.array([case.shape for case in facts.cases], dtype=float)[:, order]
        self.spacings = np.array([case.spacing for case in facts.cases])[:, order]

    def median_shape(self, spacing: Sequence[float]) -> tuple[int, ...]:
        """Median size in voxels on this spacing (mm; 0 keeps a case's own)."""
        wanted = np.where(np.asarray(spacing) > 0, spacing, self.spacings)
        return tuple(int(side) for side in np.median(np.round(self.shapes * self.spacings / wanted), axis=0).clip(1))


def choose_orientation(facts: DataFingerprint) -> tuple[str, str]:
    """LPS, or the turn that brings a coarse axis first, where 2D networks and flat kernels expect it."""
    spacing = np.median(Cases(facts, "LPS").spacings, axis=0)
    worst = int(spacing.argmax())
    if worst == 0 or spacing[worst] <= ANISOTROPIC * np.delete(spacing, worst).max():
        return "LPS", "the patient's own axes"
    return COARSEST_FIRST[worst], f"brings the coarse axis ({spacing[worst]:.3g} mm) first"


def choose_spacing(cases: Cases) -> tuple[tuple[float, float, float], str]:
    """The median; along a coarse axis of few slices the 10th percentile, which spares thin slices from blending."""
    target = np.median(cases.spacings, axis=0)
    shape = np.median(cases.shapes, axis=0)
    worst = int(target.argmax())
    others = np.delete(target, worst).max()
    reason = "median of the training cases"
    few = shape[worst] * ANISOTROPIC < np.delete(shape, worst).min()
    if target[worst] > ANISOTROPIC * others and few:
        target[worst] = max(np.percentile(cases.spacings[:, worst], 10), others)
        reason += "; along the coarse axis the 10th percentile, so that thin slices are not blended"
    z, y, x = (_round(side) for side in target)
    return (z, y, x), reason


def choose_dim(spacing: Sequence[float], shape: Sequence[int]) -> tuple[int, str]:
    """2D for stacks of so few slices that a 3D network would see no depth in them."""
    if shape[0] < FEWEST_SLICES:
        return 2, f"a case has {shape[0]} slices, too few to be halved on the way down"
    coarse = spacing[0] / max(spacing[1:])
    return 3, f"a case has {shape[0]} slices, {coarse:.1f} times as thick as their voxels are wide"


def coarser(spacing: Sequence[float], factor: float = 1.05) -> tuple[float, ...]:
    """One step coarser: the fine axes first, until all are within a factor of 2 (as nnU-Net's low resolution)."""
    fine = [side * 2 < max(spacing) for side in spacing]
    return tuple(side * factor if not any(fine) or small else side for side, small in zip(spacing, fine, strict=True))


def smallest_label(facts: DataFingerprint, spacing: Sequence[float]) -> float:
    """Voxels that the smallest label of a median case has on this spacing."""
    names = {name for case in facts.cases for name in case.labels}
    millilitres = [
        float(np.median([case.labels[name].millilitres for case in facts.cases if name in case.labels]))
        for name in sorted(names)
    ]
    return min(millilitres, default=np.inf) * 1000 / float(np.prod(spacing))


def _round(side: float) -> float:
    return float(f"{side:.4g}")
