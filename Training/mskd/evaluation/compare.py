"""Whether one model is better than another on the same cases: the one place where the project decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

RESAMPLES = 10_000
FEWEST_PAIRS = 6  # with fewer, no signed-rank test can reach p < 0.05, and a bootstrap interval is too narrow
NO_DIFFERENCE, TOO_FEW = "no difference", "too few cases to tell"


@dataclass(frozen=True)
class Difference:
    """Paired difference of Dice over cases, ours minus theirs.

    Args:
        dice_difference: Mean over the cases.
        relative_percent: The same in per cent of their mean.
        interval_95: 95 % bootstrap percentile interval of the mean (10,000 resamples of the cases, fixed seed).
        wilcoxon_p: Two-sided p of Wilcoxon's signed-rank test.
        verdict: "better", "worse", or "no difference" where the interval holds 0.
        cases: Number of pairs.
    """

    dice_difference: float
    relative_percent: float
    interval_95: tuple[float, float]
    wilcoxon_p: float
    verdict: str
    cases: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "interval_95": list(self.interval_95)}


def compare(ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> Difference:
    """Compare two models by the Dice of each case.

    Args:
        ours: One value per case; a case that is NaN on either side is left out.
        theirs: The same cases in the same order.

    Raises:
        ValueError: two lengths, or no pair to compare.
    """
    pairs = np.asarray([ours, theirs], np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if not pairs.shape[1]:
        raise ValueError("a comparison needs at least one case that both models have a Dice for")
    difference = pairs[0] - pairs[1]
    draws = np.random.default_rng(0).integers(0, len(difference), (RESAMPLES, len(difference)))
    low, high = (float(value) for value in np.percentile(difference[draws].mean(1), [2.5, 97.5]))
    theirs_mean = float(pairs[1].mean())
    return Difference(
        dice_difference=float(difference.mean()),
        relative_percent=100 * float(difference.mean()) / theirs_mean if theirs_mean else float("nan"),
        interval_95=(low, high),
        wilcoxon_p=float(wilcoxon(difference).pvalue) if difference.any() else 1.0,
        verdict=_verdict(len(difference), low, high),
        cases=len(difference),
    )


def comparison_sentence(ours: str, theirs: str, found: dict[str, Any]) -> tuple[str, str]:
    """What a comparison (as JSON) says, in words: (the figures, the verdict)."""
    low, high = found["interval_95"]
    return (
        f"{ours} against {theirs}: {found['dice_difference']:+.4f} mean Dice ({found['relative_percent']:+.2f} %), "
        f"95 % interval {low:+.4f} to {high:+.4f}, Wilcoxon p = {found['wilcoxon_p']:.3g}",
        found["verdict"],
    )


def _verdict(pairs: int, low: float, high: float) -> str:
    if low <= 0 <= high:
        return NO_DIFFERENCE
    if pairs < FEWEST_PAIRS:
        return TOO_FEW
    return "better" if low > 0 else "worse"
