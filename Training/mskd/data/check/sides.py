"""Labels named for a side of the body that lie on the other one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mskd.data.check.finding import Finding
from mskd.data.check.measure import Measured
from mskd.data.dataset import Dataset
from mskd.spec import Label

# Organs whose middles are closer than this may change sides by posture alone.
DECISIVE_MM = 5.0
TO_THE_LEFT = np.array([1.0, 0.0, 0.0])  # LPS
DIRECTIONS = (("left of", "right of"), ("behind", "in front of"), ("above", "below"))


def side_findings(dataset: Dataset, cases: Sequence[Measured]) -> list[Finding]:
    """Cases in which a pair lies the other way round than usual, and whether even the usual is against the names."""
    against_names: list[str] = []
    against_others: dict[str, list[str]] = {}
    named = {label.value: label for label in dataset.labels}
    for left, right in ((named[first], named[second]) for first, second in dataset.mirror_pairs):
        gaps = _gaps(cases, left, right)
        if not gaps:
            continue
        usual = np.median(list(gaps.values()), axis=0)
        if np.linalg.norm(usual) < DECISIVE_MM:
            usual = TO_THE_LEFT
        elif np.abs(usual).argmax() != 0 or usual[0] < 0:
            against_names.append(_words(left, right, usual))
        along = usual / np.linalg.norm(usual)
        for case, gap in gaps.items():
            if gap @ along < -DECISIVE_MM:
                against_others.setdefault(case, []).append(_words(left, right, gap))
    found = [_throughout(against_names)] if against_names else []
    return [*found, *(_contradiction(case, words) for case, words in against_others.items())]


def _gaps(cases: Sequence[Measured], left: Label, right: Label) -> dict[str, np.ndarray]:
    """Case -> way from the middle of the right organ to that of the left one, LPS mm."""
    return {
        case.id: np.subtract(case.classes[left.value].centroid, case.classes[right.value].centroid)
        for case in cases
        if case.classes and left.value in case.classes and right.value in case.classes
    }


def _words(left: Label, right: Label, gap: np.ndarray) -> str:
    axis = int(np.abs(gap).argmax())
    return f"'{left.name}' lies {abs(gap[axis]):.0f} mm {DIRECTIONS[axis][int(gap[axis] < 0)]} '{right.name}'"


def _throughout(words: Sequence[str]) -> Finding:
    more = f", and {len(words) - 1} more pairs likewise" if len(words) > 1 else ""
    text = (
        f"In most cases {words[0]}{more}: the image directions in the headers, or the names of the sides, are wrong "
        "throughout; correct the headers before you mirror in training, mix these images with others, or trust a side "
        "in Slicer."
    )
    return Finding("sides-throughout", "warning", (), text, words[0])


def _contradiction(case: str, words: Sequence[str]) -> Finding:
    more = f" ({len(words) - 1} more pairs likewise)" if len(words) > 1 else ""
    text = (
        f"{words[0]}{more}, the other way round than it should or than in the other cases; swap the two label values, "
        "or correct the direction in the header of image and labels."
    )
    return Finding("swapped-sides", "error", (case,), text, words[0])
