"""What a package asks for after the network: the largest connected piece of a label."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray


def keep_largest(labels: NDArray[np.uint8], values: Iterable[int]) -> None:
    """Set to 0, in place, every face-connected piece of each label but its largest.

    Args:
        labels: ``[z, y, x]``.
        values: Labels to clean; one that is absent stays absent.
    """
    for value in values:
        found = np.nonzero(labels == value)
        if not found[0].size:
            continue
        box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in found)
        mask = sitk.GetImageFromArray((labels[box] == value).astype(np.uint8))
        pieces = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True))
        labels[box][pieces > 1] = 0
