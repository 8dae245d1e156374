"""How unsure the network is of each voxel, as a volume of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from .errors import SegmentationError

TAG = "MSKD.Uncertainty"
COLOURS = "vtkMRMLColorTableNodeFileViridis.txt"
PERCENT = 100.0


def is_uncertainty(node: Any) -> bool:
    """Whether a volume node holds what :func:`write_uncertainty` wrote."""
    return bool(node.GetAttribute(TAG))


def check_uncertainty(node: Any, volume: Any) -> None:
    """Refuse a volume node that is the input, or holds an image of another kind, which would be lost.

    Raises:
        SegmentationError: then.
    """
    if node is volume or (node.GetImageData() is not None and not is_uncertainty(node)):
        raise SegmentationError(
            f"'{node.GetName()}' holds an image, which the uncertainty would replace; create a new volume for it."
        )


def write_uncertainty(percent: np.ndarray, volume: Any, node: Any) -> None:
    """Put uint8 voxels (z, y, x), 0 to 100, into a scalar volume node, where ``volume`` lies."""
    first = not is_uncertainty(node)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    slicer.util.updateVolumeFromArray(node, percent)
    node.SetAttribute(TAG, volume.GetName())
    if first:  # later the user's own choices stay
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAndObserveColorNodeID(COLOURS)
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0.0, PERCENT)
