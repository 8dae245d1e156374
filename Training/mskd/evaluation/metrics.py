"""Dice, HD95, NSD and volume error of one label in one case, with one stated policy for organs that are missing.

Distances are between surface voxels (voxels of the mask with a face neighbour outside it, or at the edge of the
array), measured between voxel centres in mm by SciPy's exact Euclidean distance transform.

What happens when an organ is missing:

==================================  ====  ===  =====================  ================
the organ is                        Dice  NSD  HD95                   volume error
==================================  ====  ===  =====================  ================
in the truth, not in the prediction 0     0    diagonal of the image  minus all, -100 %
in the prediction, not in the truth 0     0    diagonal of the image  plus all, % NaN
in neither                          NaN   NaN  NaN                    NaN
==================================  ====  ===  =====================  ================

NaN means "leave this case out of the mean, and count it as absent"; a missed organ is never left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mskd.spec import IGNORE

Mask = npt.NDArray[np.bool_]

NAN = float("nan")
PERCENTILE = 95.0
DEFAULT_TOLERANCE_MM = 1.0


@dataclass(frozen=True)
class Scores:
    """How well one label was segmented in one case.

    Args:
        dice: 0 to 1.
        hd95: mm; the larger of the two directed 95th percentiles of surface distance.
        nsd: 0 to 1; share of both surfaces that lies within the tolerance of the other (normalised surface Dice).
        volume_error_ml: Predicted minus true volume, mL.
        volume_error_percent: The same in per cent of the true volume.
    """

    dice: float
    hd95: float
    nsd: float
    volume_error_ml: float
    volume_error_percent: float


ABSENT = Scores(NAN, NAN, NAN, NAN, NAN)


def per_class_dice(prediction: np.ndarray, truth: np.ndarray, classes: int) -> npt.NDArray[np.float64]:
    """Dice of every foreground class of one case, without the voxels whose truth is ``IGNORE``.

    Args:
        prediction: Label values below ``classes``, any shape, any integer type.
        truth: The same shape, with values below ``classes``, or ``IGNORE``.
        classes: Number of classes, background included, at most 255.

    Returns:
        ``[classes - 1]``, entry 0 for label 1; NaN where a class is absent in both.

    Raises:
        ValueError: the shapes differ, or a value is negative or not below ``classes``.
    """
    _same_shape(prediction, truth)
    counted = truth != IGNORE
    if not counted.all():
        prediction, truth = prediction[counted], truth[counted]
    for name, values in (("prediction", prediction), ("truth", truth)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            low, high = values.min(), values.max()
            raise ValueError(f"the {name} holds values {low}..{high}, outside the {classes} classes 0..{classes - 1}")
    predicted = np.bincount(prediction.ravel(), minlength=classes)
    true = np.bincount(truth.ravel(), minlength=classes)
    hits = np.bincount(truth[prediction == truth].ravel(), minlength=classes)
    total = predicted + true
    dice = np.full(classes, np.nan)
    np.divide(2.0 * hits, total, out=dice, where=total > 0)
    return dice[1:]


def score(prediction: Mask, truth: Mask, spacing: Sequence[float], tolerance: float = DEFAULT_TOLERANCE_MM) -> Scores:
    """All metrics of one label in one case, with the missing-organ policy of this module.

    Args:
        prediction: Boolean mask, 2D or 3D.
        truth: Boolean mask of the same shape.
        spacing: mm per axis, in array order.
        tolerance: NSD tolerance in mm.

    Raises:
        ValueError: shapes or lengths differ, or a spacing or the tolerance is not positive.
    """
    _same_shape(prediction, truth)
    if len(spacing) != truth.ndim or min(spacing) <= 0 or tolerance <= 0:
        raise ValueError(f"spacing {tuple(spacing)} needs {truth.ndim} positive numbers, tolerance {tolerance} too")
    if not truth.any() and not prediction.any():
        return ABSENT
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    error = (predicted - true) * float(np.prod(spacing)) / 1000.0
    percent = 100.0 * (predicted - true) / true if true else NAN
    if not predicted or not true:
        diagonal = float(np.linalg.norm(np.asarray(truth.shape) * np.asarray(spacing)))
        return Scores(0.0, diagonal, 0.0, error, percent)
    forth, back = surface_distances(prediction, truth, spacing)
    return Scores(
        dice=2.0 * int(np.count_nonzero(prediction & truth)) / (predicted + true),
        hd95=float(max(np.percentile(forth, PERCENTILE), np.percentile(back, PERCENTILE))),
        nsd=float((np.sum(forth <= tolerance) + np.sum(back <= tolerance)) / (forth.size + back.size)),
        volume_error_ml=error,
        volume_error_percent=percent,
    )


def surface_distances(
    prediction: Mask, truth: Mask, spacing: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distances in mm from each surface voxel of one mask to the nearest surface voxel of the other.

    Returns:
        (prediction to truth, truth to prediction), each ``[number of surface voxels]``. Both masks must be non-empty.
    """
    box = _bounding_box(prediction | truth)
    ours, theirs = _surface(prediction[box]), _surface(truth[box])
    to_truth = ndimage.distance_transform_edt(~theirs, sampling=tuple(spacing))
    to_prediction = ndimage.distance_transform_edt(~ours, sampling=tuple(spacing))
    return to_truth[ours], to_prediction[theirs]


def _surface(mask: Mask) -> Mask:
    return mask & ~ndimage.binary_erosion(mask)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    box: tuple[slice, ...] = ndimage.find_objects(mask.astype(np.uint8))[0]
    return box


def _same_shape(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} must have the same shape")
