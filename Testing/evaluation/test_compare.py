"""Whether one model is better than another."""

from __future__ import annotations

import numpy as np
import pytest

from mskd.evaluation.compare import NO_DIFFERENCE, TOO_FEW, compare, comparison_sentence


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, NO_DIFFERENCE), (0.02, "better"), (-0.02, "worse")])
def test_a_difference_whose_interval_holds_zero_is_none(shift: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    theirs = rng.uniform(0.8, 0.9, 40)
    found = compare(theirs + shift + rng.normal(0, 0.01, 40), theirs)
    assert found.verdict == verdict
    assert (found.interval_95[0] <= 0 <= found.interval_95[1]) == (verdict == NO_DIFFERENCE)
    assert found.interval_95[0] < found.dice_difference < found.interval_95[1]
    assert found.cases == 40


def test_equal_models_and_too_few_cases_are_no_verdict() -> None:
    same = compare([0.5, 0.7], [0.5, 0.7])
    assert (same.verdict, same.wilcoxon_p, same.interval_95) == (NO_DIFFERENCE, 1.0, (0.0, 0.0))
    assert compare([0.6, 0.8, 0.7], [0.5, 0.7, 0.6]).verdict == TOO_FEW
    assert compare([0.6] * 6, [0.5] * 6).verdict == "better"


def test_a_case_without_a_dice_on_either_side_is_left_out() -> None:
    found = compare([0.6, float("nan"), 0.8], [0.5, 0.1, float("nan")])
    assert found.cases == 1
    assert found.dice_difference == pytest.approx(0.1)
    assert found.relative_percent == pytest.approx(20.0)
    with pytest.raises(ValueError, match="at least one case"):
        compare([float("nan")], [0.5])


def test_the_sentence_says_all_of_it() -> None:
    figures, verdict = comparison_sentence("student", "alone", compare([0.6] * 8, [0.5] * 8).as_json())
    assert figures.startswith("student against alone: +0.1000 mean Dice (+20.00 %), 95 % interval +0.1000 to +0.1000")
    assert verdict == "better"
