"""Cases on another kind of grid than the rest: spacing, field of view, orientation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mskd.data.check.finding import Finding, fold_common, listed
from mskd.data.check.measure import Measured
from mskd.data.check.robust import robust_z

AXES = ("z (head)", "y (back)", "x (left)")
CUT = 5.0
# In logarithms: with all the rest alike, a spacing 1.5 times and an extent 1.8 times the usual one is remarkable.
SPACING_FLOOR, EXTENT_FLOOR = 0.08, 0.12


def grid_findings(cases: Sequence[Measured]) -> list[Finding]:
    """Outliers of spacing and field of view, one finding a case; and whose stored axes run otherwise."""
    readable = [case for case in cases if case.geometry is not None]
    return [*_outliers(readable), *_orientations(readable)]


def spacings(cases: Sequence[Measured]) -> np.ndarray:
    """mm along (z, y, x), axes turned to LPS: ``[cases, 3]``."""
    return np.array([case.geometry.spacing for case in cases if case.geometry is not None]).reshape(-1, 3)


def extents(cases: Sequence[Measured]) -> np.ndarray:
    """Field of view in mm along (z, y, x), axes turned to LPS: ``[cases, 3]``."""
    shapes = np.array([case.geometry.shape for case in cases if case.geometry is not None]).reshape(-1, 3)
    return shapes * spacings(cases)


def _outliers(cases: Sequence[Measured]) -> list[Finding]:
    parts = []
    for name, values, floor in (
        ("spacing", spacings(cases), SPACING_FLOOR),
        ("field of view", extents(cases), EXTENT_FLOOR),
    ):
        z = robust_z(np.log(values), floor)
        parts.append((name, values, z))
    found = []
    for row, case in enumerate(cases):
        odd = [
            f"{name} along {AXES[axis]} {values[row, axis]:.4g} mm, usually {np.median(values[:, axis]):.4g}"
            for name, values, z in parts
            for axis in range(3)
            if abs(z[row, axis]) > CUT
        ]
        if odd:
            text = (
                f"The grid is unlike the others' ({'; '.join(odd)}; more than {CUT:g} robust standard deviations); see "
                "that the header is right, or leave the case out."
            )
            found.append(Finding("grid-outlier", "warning", (case.id,), text, odd[0]))
    return fold_common(found, len(cases), "have a spacing or field of view unlike the others'")


def _orientations(cases: Sequence[Measured]) -> list[Finding]:
    counts = Counter(case.orientation for case in cases)
    if len(counts) < 2:
        return []
    usual = counts.most_common(1)[0][0]
    found = []
    for orientation, count in counts.most_common()[1:]:
        ids = tuple(case.id for case in cases if case.orientation == orientation)
        text = (
            f"The stored axes run {orientation} in {count} of {len(cases)} cases ({listed(ids)}) and {usual} in most; "
            "reading turns them all alike, so see only that these headers are true."
        )
        found.append(Finding("orientation", "note", ids, text, orientation))
    return found
