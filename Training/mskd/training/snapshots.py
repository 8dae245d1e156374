"""How the network sees a few fixed validation cases, as pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mskd.data.prepared import PreparedCase
from mskd.evaluation.overlay import overlay, pixels
from mskd.image import Geometry, Image, LabelMap
from mskd.spec import Label

AXIAL = 0


def snapshots(cases: Sequence[tuple[PreparedCase, np.ndarray]], labels: Sequence[Label]) -> dict[str, np.ndarray]:
    """The axial slice that shows most labels of each case, the truth dashed over the prediction.

    Args:
        cases: Validation cases and what the network made of them, uint8 ``[z, y, x]``.

    Returns:
        "overlay/CASE" -> uint8 ``[height, width, 3]``, for ``RunLog.images``.
    """
    found = {}
    for case, prediction in cases:
        if case.labels is None:
            continue
        z, y, x = case.image.shape[1:]
        geometry = Geometry((z, y, x), (case.spacing[0], case.spacing[1], case.spacing[2]))
        truth, predicted = (LabelMap(np.asarray(array), geometry) for array in (case.labels, prediction))
        figure = overlay(Image(case.image, geometry), truth, {"": predicted}, labels, axes=(AXIAL,))
        found[f"overlay/{case.id}"] = pixels(figure)
    return found
