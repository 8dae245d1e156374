"""The grid a network sees: the image's own, turned to the model's orientation, cropped and resampled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mskd.errors import InputError
from mskd.image.geometry import Geometry, Triple
from mskd.inference.region import Region
from mskd.spec import Normalization

Slices = tuple[slice, slice, slice]

GROWS_TOWARDS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
"""Letter -> LPS axis, and the sign of growth along it."""

SAME_SPACING = 0.01
"""Relative difference up to which an axis is left as it is."""

CONTEXT_MM = 4.0
"""What the network sees around a region of interest."""


class InputSpec(Protocol):
    """What preparation needs to know of a model; a Manifest is one."""

    @property
    def spacing(self) -> tuple[float | None, float | None, float | None]: ...

    @property
    def orientation(self) -> str: ...

    @property
    def normalization(self) -> Normalization: ...


@dataclass(frozen=True)
class Grid:
    """From the source grid to the prepared one and back.

    Args:
        source: Grid of the file.
        axes: Source array axis that becomes each oriented array axis (z, y, x).
        flips: Whether that axis is reversed.
        oriented: Source grid after turning.
        crop: Box taken out of the oriented grid.
        geometry: Prepared grid: the crop, resampled.
    """

    source: Geometry
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    oriented: Geometry
    crop: Slices
    geometry: Geometry

    @property
    def crop_shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) of the crop, before resampling."""
        z, y, x = (box.stop - box.start for box in self.crop)
        return z, y, x

    def view(self, array: NDArray) -> NDArray:
        """The crop of a source array ``[..., z, y, x]``, turned: a view, so writing to it writes to the source."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        steps = tuple(slice(None, None, -1 if flip else None) for flip in self.flips)
        every = (slice(None),) * lead
        return turned[every + steps][every + self.crop]


def make_grid(source: Geometry, spec: InputSpec, region: Region | None = None) -> Grid:
    """Plan how an image on ``source`` becomes the model's input.

    The axes are permuted and reversed to the nearest ones of ``spec.orientation``; oblique directions stay oblique.

    Raises:
        InputError: the region does not meet the image.
    """
    axes, flips = _turn(source, spec.orientation)
    oriented = _turned(source, axes, flips)
    crop: Slices | None = (slice(0, oriented.shape[0]), slice(0, oriented.shape[1]), slice(0, oriented.shape[2]))
    if region is not None:
        if oriented.index_box(*region.lps()) is None:
            raise InputError(
                f"The region of interest {region.minimum} to {region.maximum} (RAS mm) holds no voxel of the image; "
                "move it onto the image."
            )
        crop = oriented.index_box(*region.lps(CONTEXT_MM))
    if crop is None:
        raise ValueError("a region with a margin holds what it holds without")
    return Grid(source, axes, flips, oriented, crop, _resampled(oriented, crop, spec.spacing))


def narrowed(grid: Grid, box: Slices, spec: InputSpec) -> Grid:
    """The same way to a part of it: ``box`` counts in voxels of ``grid``'s crop."""
    z, y, x = (
        slice(crop.start + part.start, crop.start + part.stop) for crop, part in zip(grid.crop, box, strict=True)
    )
    crop = (z, y, x)
    return replace(grid, crop=crop, geometry=_resampled(grid.oriented, crop, spec.spacing))


def _turn(source: Geometry, orientation: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    targets = [GROWS_TOWARDS[letter] for letter in reversed(orientation)]  # in array order z, y, x
    cosines = source.matrix[:, ::-1]  # column j: the LPS direction of array axis j

    def agreement(order: tuple[int, ...]) -> float:
        return sum(abs(cosines[world, axis]) for (world, _), axis in zip(targets, order, strict=True))

    z, y, x = max(permutations(range(3)), key=agreement)
    flips = [bool(cosines[world, axis] * sign < 0) for (world, sign), axis in zip(targets, (z, y, x), strict=True)]
    return (z, y, x), (flips[0], flips[1], flips[2])


def _turned(source: Geometry, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Geometry:
    shape = tuple(source.shape[axis] for axis in axes)
    spacing = tuple(source.spacing[axis] for axis in axes)
    first = [0.0, 0.0, 0.0]
    for axis, flip in zip(axes, flips, strict=True):
        first[axis] = float(source.shape[axis] - 1) if flip else 0.0
    columns = source.matrix[:, ::-1][:, list(axes)] * np.where(flips, -1.0, 1.0)
    origin = source.point((first[0], first[1], first[2]))
    return Geometry(shape, spacing, origin, tuple(columns[:, ::-1].ravel().tolist()))  # type: ignore[arg-type]


def _resampled(oriented: Geometry, crop: Slices, wanted: tuple[float | None, ...]) -> Geometry:
    """The crop at the wanted spacing: the outer faces of its first and last voxels stay where they are."""
    shape: list[int] = []
    spacing: list[float] = []
    first: list[float] = []
    for box, step, target in zip(crop, oriented.spacing, wanted, strict=True):
        side = box.stop - box.start
        count = side
        # One slice holds nothing to interpolate between.
        if target is not None and side > 1 and abs(step / target - 1) > SAME_SPACING:
            count = max(1, round(side * step / target))
        shape.append(count)
        spacing.append(side * step / count)
        first.append(box.start + (side / count - 1) / 2)
    origin = oriented.point(_triple(first))
    return Geometry((shape[0], shape[1], shape[2]), _triple(spacing), origin, oriented.direction)


def _triple(values: list[float]) -> Triple:
    return values[0], values[1], values[2]
