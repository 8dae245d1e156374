"""How the network sees a few fixed validation cases, as pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mskd.data.prepared import PreparedCase
from mskd.evaluation.overlay import overlay, pixels
from mskd.image import Geometry, Image, LabelMap
from mskd.spec import Label

MOST = 2
AXIAL = 0


def snapshots(
    cases: Sequence[PreparedCase],
    labels: Sequence[Label],
    predict: Callable[[PreparedCase], np.ndarray],
    most: int = MOST,
) -> dict[str, np.ndarray]:
    """The axial slice that shows most labels of the first cases, the truth dashed over the prediction.

    Args:
        cases: The validation cases: the first labelled ones are drawn, the same at each call.
        predict: Case -> labels uint8 ``[z, y, x]``.

    Returns:
        "overlay/CASE" -> uint8 ``[height, width, 3]``, for ``RunLog.images``.
    """
    found = {}
    for case in [case for case in cases if case.labels is not None][:most]:
        z, y, x = case.image.shape[1:]
        geometry = Geometry((z, y, x), (case.spacing[0], case.spacing[1], case.spacing[2]))
        truth, prediction = (LabelMap(np.asarray(array), geometry) for array in (case.labels, predict(case)))
        figure = overlay(Image(case.image, geometry), truth, {"": prediction}, labels, axes=(AXIAL,))
        found[f"overlay/{case.id}"] = pixels(figure)
    return found
