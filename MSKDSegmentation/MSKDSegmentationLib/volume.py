"""A volume node as voxels and a grid in space, with its parent transform accounted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from .errors import SegmentationError

# World and node coordinates are RAS in Slicer; images travel in LPS, ITK's convention.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Grid:
    """A rectangular voxel grid.

    ``shape`` is (z, y, x); ``voxel_to_world`` the exact 4x4 matrix from voxel (i, j, k) to RAS mm in the world, which
    may shear; ``voxel_to_image`` the nearest one without shear, about the same centre: what an image file can say.
    """

    shape: tuple[int, int, int]
    voxel_to_world: np.ndarray
    voxel_to_image: np.ndarray

    def as_geometry(self) -> dict[str, list[float]]:
        """Spacing (z, y, x) mm, origin and row-major direction in LPS, as the worker reads them."""
        matrix = RAS_TO_LPS @ self.voxel_to_image
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        return {
            "spacing": spacing[::-1].tolist(),
            "origin": matrix[:3, 3].tolist(),
            "direction": (matrix[:3, :3] / spacing).ravel().tolist(),
        }

    def region_around(self, corners: np.ndarray) -> dict[str, list[float]]:
        """The axis-aligned box in RAS mm, in the frame of ``as_geometry``, around world points ``corners`` [n, 3]."""
        points = np.c_[corners, np.ones(len(corners))].T
        placed = (self.voxel_to_image @ np.linalg.inv(self.voxel_to_world) @ points)[:3]
        return {"minimum": placed.min(axis=1).tolist(), "maximum": placed.max(axis=1).tolist()}


def voxels(volume: Any) -> np.ndarray:
    """The voxels of a scalar volume node, (z, y, x), not copied.

    Raises:
        SegmentationError: no image, or more than one number per voxel.
    """
    image = volume.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        raise SegmentationError(f"'{volume.GetName()}' holds no image; load one into it or choose another volume.")
    components = image.GetNumberOfScalarComponents()
    if components != 1:
        raise SegmentationError(
            f"'{volume.GetName()}' has {components} numbers per voxel; convert it to a scalar volume (module Vector to "
            "Scalar Volume) or choose another."
        )
    return slicer.util.arrayFromVolume(volume)


def grid_of(volume: Any) -> Grid:
    """The grid of a volume node in the world, below its parent transform.

    A rigid or scaling transform is followed exactly, so the network sees the anatomy as it is displayed. Under a shear
    the nearest grid without shear is used. The voxels are the same in every case, and so are the segments' voxels.

    Raises:
        SegmentationError: the parent transform is not linear, or the grid is flat.
    """
    shape = voxels(volume).shape
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    to_world = to_world_matrix(volume) @ slicer.util.arrayFromVTKMatrix(matrix)
    return Grid(shape, to_world, _without_shear(to_world, shape, volume.GetName()))


def to_world_matrix(node: Any) -> np.ndarray:
    """The 4x4 matrix from a transformable node's own coordinates to the world (RAS mm).

    Raises:
        SegmentationError: a transform above it is not linear.
    """
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise SegmentationError(
            f"'{node.GetName()}' is under the non-linear transform '{transform.GetName()}'; harden it first."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _without_shear(matrix: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    axes = matrix[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.all(np.isfinite(matrix)) or spacing.min() <= 0 or abs(np.linalg.det(axes / spacing)) < 1e-6:
        raise SegmentationError(
            f"The voxels of '{name}' have no volume (spacing {spacing.round(6).tolist()} mm); correct its spacing and "
            "directions in the Volumes module."
        )
    direction = axes / spacing
    if np.allclose(direction.T @ direction, np.eye(3), atol=1e-5):
        return matrix
    left, _, right = np.linalg.svd(direction)
    nearest = np.eye(4)
    nearest[:3, :3] = (left @ right) * spacing
    centre = (np.array(shape[::-1]) - 1) / 2
    nearest[:3, 3] = axes @ centre + matrix[:3, 3] - nearest[:3, :3] @ centre
    return nearest


def region_corners(region: Any) -> np.ndarray:
    """The eight corners [8, 3] in world RAS mm of a markups ROI node, or of a pair (minimum, maximum) of points.

    Raises:
        SegmentationError: the box is empty or not a box.
    """
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
    if hasattr(region, "GetObjectToNodeMatrix"):
        size = np.array(region.GetSize())
        to_world = to_world_matrix(region) @ slicer.util.arrayFromVTKMatrix(region.GetObjectToNodeMatrix())
        what, centre = f"The region '{region.GetName()}'", np.zeros(3)
    else:
        low, high = np.asarray(region, dtype=float).reshape(2, 3)
        size, centre, to_world, what = high - low, (low + high) / 2, np.eye(4), "The region"
    if not np.all(size > 0):
        raise SegmentationError(f"{what} is empty (size {size.round(3).tolist()} mm); draw it around the organ.")
    return (np.c_[centre + signs * size / 2, np.ones(8)] @ to_world.T)[:, :3]
