"""Label maps that seem shifted, mirrored, swapped or taken from another image, as far as statistics can see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mskd.data.check.finding import Finding, fold_common
from mskd.data.check.measure import Measured
from mskd.data.check.robust import centre_and_spread, robust_z
from mskd.data.dataset import Dataset
from mskd.spec import Label

# Of rank and rank spread, 0 to 1: smaller differences are nothing, however alike the other cases are.
RANK_FLOORS = (0.03, 0.015)
# One class alone may be ill or full of contrast medium: it counts this much at most, and the classes' mean decides.
MOST_OF_A_CLASS = 10.0
TISSUE_CUT = 4.0
PLACE_FLOOR_MM, PLACE_CUT = 3.0, 6.0
CERTAIN = 4.0  # a class has a side of the others when its usual offset is so many spreads from 0
DIRECTIONS = (("left", "right"), ("behind", "in front"), ("above", "below"))


# Share of the labelled voxels whose slice shows nothing else; a few at an organ's tip may lie in air.
BARE = 0.02
# Where most cases are so, as after skull stripping, it was meant.
MOSTLY = 0.5


def masked_findings(cases: Sequence[Measured]) -> list[Finding]:
    """Images that are blank around the labels: the network would learn to find the mask."""
    found = [
        Finding(
            "masked-image",
            "warning",
            (case.id,),
            f"{case.bare:.1%} of the labelled voxels lie in slices where the image is blank all around them (more than "
            f"{BARE:.0%} is unusual), so that it was probably masked by its labels and gives them away; restore the "
            "whole image, or leave the case out.",
            round(case.bare, 3),
        )
        for case in cases
        if case.bare > BARE
    ]
    return fold_common(found, len(cases), "are blank around their labels", common=MOSTLY)


def placement_findings(dataset: Dataset, cases: Sequence[Measured]) -> list[Finding]:
    """One finding a case, from the tissue under the labels and from how they lie to one another."""
    usable = [case for case in cases if case.classes]
    tissue = _tissue(usable, dataset.labels)
    reversals = _reversals(usable, dataset.labels)
    found = []
    for case, deviation, reversed_labels in zip(usable, tissue, reversals, strict=True):
        evidence = list(reversed_labels[:2])
        if deviation > TISSUE_CUT:
            evidence.insert(
                0,
                f"the tissue under them deviates by {deviation:.1f} robust standard deviations, at most {TISSUE_CUT:g} "
                "is usual",
            )
        if evidence:
            text = (
                f"The labels do not lie as in the other cases: {'; '.join(evidence)}. Look whether they are shifted, "
                "mirrored, swapped or another image's, or this patient is truly unlike the rest."
            )
            value = round(float(deviation), 2)
            found.append(Finding("misplaced-labels", "warning", (case.id,), text, value))
    return fold_common(found, len(usable), "have labels that lie unlike the others'")


def _tissue(cases: Sequence[Measured], labels: Sequence[Label]) -> np.ndarray:
    """For each case, the mean over its classes of the deviation of the intensities under them."""
    table = np.full((len(cases), len(labels), 2), np.nan)
    for row, case in enumerate(cases):
        for column, label in enumerate(labels):
            measured = (case.classes or {}).get(label.value)
            if measured is not None:
                table[row, column] = measured.rank, measured.rank_spread
    z = np.max([np.abs(robust_z(table[..., part], floor)) for part, floor in enumerate(RANK_FLOORS)], axis=0)
    present = np.isfinite(table[..., 0])
    return (np.minimum(z, MOST_OF_A_CLASS) * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def _reversals(cases: Sequence[Measured], labels: Sequence[Label]) -> list[list[str]]:
    """For each case, which class lies on the other side of the middle of all classes than it does elsewhere."""
    offsets = np.full((len(cases), len(labels), 3), np.nan)
    for row, case in enumerate(cases):
        for column, label in enumerate(labels):
            measured = (case.classes or {}).get(label.value)
            if measured is not None:
                offsets[row, column] = measured.centroid
    for own in offsets:
        if np.isfinite(own).any():
            own -= np.nanmean(own, axis=0)
    if not cases:
        return []
    usual, spread = centre_and_spread(offsets, PLACE_FLOOR_MM)
    certain = np.abs(usual) > CERTAIN * spread
    far = np.abs(robust_z(offsets, PLACE_FLOOR_MM)) > PLACE_CUT
    other_side = (offsets * usual < 0) & (np.abs(offsets) > spread)
    said = []
    for row, hits in enumerate(certain & far & other_side):
        said.append(
            [
                f"'{labels[column].name}' lies {abs(offsets[row, column, axis]):.0f} mm "
                f"{DIRECTIONS[axis][int(offsets[row, column, axis] < 0)]} of the labels' middle, usually "
                f"{abs(usual[column, axis]):.0f} mm {DIRECTIONS[axis][int(usual[column, axis] < 0)]}"
                for column, axis in np.argwhere(hits)
            ]
        )
    return said
