"""Rules that look at the data alone: intensities, mirroring, rotation, shares of a split, labels of one piece.

Each gives a value and the reason, with the figures it was decided by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mskd.data import Dataset
from mskd.spec import Label
from mskd.training.planning.grid import ANISOTROPIC
from mskd.training.planning.measure import DataFingerprint, LabelFacts

OFF_CENTRE, MOSTLY = 0.12, 0.9
"""A label lies on one side when its centre is this share of the width off the middle, to one side in most cases."""
ONE_PIECE, NEARLY_EVERY = 0.995, 0.95
MOST_DEGREES, FEWEST_DEGREES, MOST_SLICES = 15.0, 3.0, 1.5
MOST_VALIDATION = 20

Choice = tuple[Any, str]


def choose_normalization(dataset: Dataset, facts: DataFingerprint) -> Choice:
    """CT is measured in a unit of its own: clipped and scaled by the whole training set. All else: case by case."""
    modalities = sorted({channel.modality for channel in dataset.channels})
    if modalities != ["CT"] or not facts.channels:
        return {"name": "zscore"}, f"{' and '.join(modalities)} has no fixed unit: each case by its own mean and spread"
    low, high = min(channel.low for channel in facts.channels), max(channel.high for channel in facts.channels)
    mean = sum(channel.mean for channel in facts.channels) / len(facts.channels)
    std = max(channel.std for channel in facts.channels)
    if not low < high or std <= 0:
        return {"name": "zscore"}, f"the labelled voxels all have the value {low:g}"
    values = {"lower": low, "upper": high, "mean": mean, "std": std}
    return (
        {"name": "clip_zscore", **{name: round(value, 2) for name, value in values.items()}},
        "CT: the 0.5 and 99.5 percentiles, mean and standard deviation of the labelled voxels of the training cases",
    )


def choose_mirror(dataset: Dataset, facts: DataFingerprint, orientation: str) -> Choice:
    """Left to right where neither names nor places tell the sides apart; patients do not come upside down."""
    sides = next(axis for axis, letter in zip("xyz", orientation, strict=True) if letter in "LR")
    paired = {value for pair in dataset.mirror_pairs for value in pair}
    if dataset.one_sided:
        return [], f"'{dataset.one_sided[0].name}' names a side and has no partner to trade places with"
    for label in dataset.labels:
        lean = None if label.value in paired else _leaning(label, facts)
        if lean is not None:
            return [], f"'{label.name}' lies on one side of the image (its centre at {lean:.2f} of the width)"
    swapped = "; left and right labels trade places" if paired else ""
    return [sides], f"left to right: no label lies on one side{swapped}"


def _leaning(label: Label, facts: DataFingerprint) -> float | None:
    """Mean place of a label that lies on one side of nearly all images."""
    places = [found.place for found in _found(label, facts)]
    if not places:
        return None
    mean = sum(places) / len(places)
    same = sum((place - 0.5) * (mean - 0.5) > 0 for place in places)
    return mean if abs(mean - 0.5) > OFF_CENTRE and same >= MOSTLY * len(places) else None


def choose_rotation(spacing: Sequence[float], patch: Sequence[int]) -> Choice:
    """15 degrees; where slices are thick, no more than moves the border of a patch by a slice and a half."""
    if len(patch) == 2 or spacing[0] < ANISOTROPIC * max(spacing[1:]):
        return MOST_DEGREES, "degrees; patients lie much alike"
    reach = max(step * side for step, side in zip(spacing[1:], patch[1:], strict=True)) / 2
    degrees = math.degrees(math.atan(MOST_SLICES * spacing[0] / reach))
    degrees = float(round(min(MOST_DEGREES, max(FEWEST_DEGREES, degrees))))
    return (
        degrees,
        f"degrees; moves the border of the patch ({reach:.0f} mm out) by a slice and a half of {spacing[0]:g} mm",
    )


def choose_single_pieces(dataset: Dataset, facts: DataFingerprint) -> Choice:
    """The labels of which the largest piece is (nearly) all in nearly every training case."""
    kept, worst = [], 1.0
    for label in dataset.labels:
        found = _found(label, facts)
        whole = sum(case.largest_piece >= ONE_PIECE for case in found)
        if found and whole >= NEARLY_EVERY * len(found):
            kept.append(label.name)
            worst = min(worst, whole / len(found))
    if not kept:
        return [], "no label is one piece in nearly every training case"
    return kept, f"one piece in nearly every training case that shows it ({worst:.0%} or more)"


def choose_validation(patients: int) -> Choice:
    """A tenth of the patients, between 2 and 20 of them; of fewer than 3 patients none can be spared."""
    if patients < 3:
        return 0.0, f"{patients} patients leave none to validate on: the last weights are taken"
    wanted = 1 if patients < 8 else min(MOST_VALIDATION, max(2, round(0.1 * patients)))
    return round(wanted / patients, 3), f"{wanted} of {patients} patients, to choose the weights by"


def choose_test(patients: int) -> Choice:
    """A fifth of the patients, at most 40."""
    if patients < 3:
        return 0.0, f"{patients} patients leave none to test on"
    wanted = min(40, max(1, round(0.2 * patients)))
    return round(wanted / patients, 3), f"{wanted} of {patients} patients, which training never reads"


def _found(label: Label, facts: DataFingerprint) -> list[LabelFacts]:
    return [case.labels[label.name] for case in facts.cases if label.name in case.labels]
