"""A voxel grid in the patient, and the arrays that live on one.

Arrays and what counts voxels (``shape``, ``spacing``) are in array order (z, y, x); points and the direction matrix
are as ITK has them: (x, y, z) in LPS millimetres. Index axis x of ITK is the last array axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mskd.errors import InputError

Triple = tuple[float, float, float]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
LARGEST_SPACING = 1e4
SMALLEST_DETERMINANT = 1e-3


@dataclass(frozen=True)
class Geometry:
    """Where a voxel grid lies in the patient.

    Args:
        shape: Voxels along (z, y, x).
        spacing: Millimetres along (z, y, x).
        origin: Centre of the first voxel, (x, y, z) LPS mm.
        direction: 3x3 matrix, row-major; column i is the LPS direction in which ITK's index axis i (x, y, z) grows.

    Raises:
        InputError: an empty axis, a spacing that is not a positive length, a direction matrix that is singular.
    """

    shape: tuple[int, int, int]
    spacing: Triple = (1.0, 1.0, 1.0)
    origin: Triple = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(f"The image size (z, y, x) is {self.shape}: three axes of at least one voxel are needed.")
        if len(self.spacing) != 3 or not all(0 < step <= LARGEST_SPACING for step in self.spacing):
            raise InputError(
                f"The spacing (z, y, x) is {_numbers(self.spacing)} mm: each must be above 0 and at most "
                f"{LARGEST_SPACING:g}; correct the image header."
            )
        if len(self.origin) != 3 or not np.all(np.isfinite(self.origin)):
            raise InputError(f"The origin is {_numbers(self.origin)}: three finite numbers are needed.")
        if len(self.direction) != 9 or not np.all(np.isfinite(self.direction)):
            raise InputError(f"The direction is {_numbers(self.direction)}: nine finite numbers are needed.")
        if abs(np.linalg.det(self.matrix)) < SMALLEST_DETERMINANT:
            raise InputError(
                f"The direction matrix {_numbers(self.direction)} is singular: the image axes must span space; "
                "correct the image header."
            )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The direction as a 3x3 array."""
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    @cached_property
    def index_to_point(self) -> NDArray[np.float64]:
        """4x4 affine from the ITK index (x, y, z) to LPS mm."""
        affine = np.eye(4)
        affine[:3, :3] = self.matrix * np.asarray(self.spacing[::-1])
        affine[:3, 3] = self.origin
        return affine

    @property
    def voxel_volume(self) -> float:
        """Cubic millimetres of one voxel."""
        return float(abs(np.linalg.det(self.index_to_point[:3, :3])))

    def point(self, index: Triple) -> Triple:
        """LPS mm of a continuous array index (z, y, x)."""
        x, y, z = self.index_to_point[:3] @ np.array([*index[::-1], 1.0])
        return float(x), float(y), float(z)

    def matches(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Whether both grids have the same shape and no corner lies further apart than ``tolerance`` voxels."""
        return self.shape == other.shape and self.corner_distance(other) <= tolerance * min(self.spacing)

    def corner_distance(self, other: Geometry) -> float:
        """Largest distance in mm between a corner of this grid and the same index of ``other``."""
        last = np.asarray(self.shape[::-1]) - 1
        corners = np.array([[*(last * (np.unravel_index(i, (2, 2, 2)))), 1] for i in range(8)], dtype=np.float64)
        moved = corners @ (self.index_to_point - other.index_to_point).T
        return float(np.linalg.norm(moved[:, :3], axis=1).max())

    def index_box(self, lowest: Triple, highest: Triple) -> tuple[slice, slice, slice] | None:
        """Array slices of the smallest index box that covers an LPS box (x, y, z mm); None when they do not meet."""
        box = np.array([lowest, highest])
        corners = np.array([[box[i, 0], box[j, 1], box[k, 2], 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        indices = (corners @ np.linalg.inv(self.index_to_point).T)[:, 2::-1]
        start = np.maximum(np.ceil(indices.min(axis=0) - 1e-6), 0).astype(int)
        stop = np.minimum(np.floor(indices.max(axis=0) + 1e-6).astype(int) + 1, self.shape)
        if np.any(stop <= start):
            return None
        z, y, x = (slice(int(low), int(high)) for low, high in zip(start, stop, strict=True))
        return z, y, x


@dataclass(frozen=True)
class Image:
    """Voxels ``[C, z, y, x]`` of any numeric type on one grid."""

    array: NDArray[np.generic]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.geometry.shape:
            raise InputError(f"The image array is {self.array.shape}: [channels, z, y, x] on {self.geometry.shape}.")


@dataclass(frozen=True)
class LabelMap:
    """Labels ``[z, y, x]``, uint8, 0 is background."""

    array: NDArray[np.uint8]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.dtype != np.uint8 or self.array.shape != self.geometry.shape:
            raise InputError(
                f"The label array is {self.array.dtype} {self.array.shape}: it must be uint8 {self.geometry.shape}."
            )


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
