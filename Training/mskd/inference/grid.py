"""The grid a network sees: the image's own, turned to the model's orientation, cropped and resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import inf
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


def make_grid(
    source: Geometry,
    spec: InputSpec,
    region: Region | None = None,
    most: tuple[float, float, float] = (inf, inf, inf),
) -> Grid:
    """Plan how an image on ``source`` becomes the model's input.

    The axes are permuted and reversed to the nearest ones of ``spec.orientation``; oblique directions stay oblique.

    Args:
        source: Grid of the file.
        spec: What the model takes.
        region: Where to look; a little context is added.
        most: Prepared voxels (z, y, x) beyond which a region that fits into them gets less context.

    Raises:
        InputError: the region does not meet the image.
    """
    axes, flips = _turn(source, spec.orientation)
    oriented = _turned(source, axes, flips)
    crop: Slices = (slice(0, oriented.shape[0]), slice(0, oriented.shape[1]), slice(0, oriented.shape[2]))
    if region is not None:
        inner, outer = oriented.index_box(*region.lps()), oriented.index_box(*region.lps(CONTEXT_MM))
        if inner is None or outer is None:
            raise InputError(
                f"The region of interest {region.minimum} to {region.maximum} (RAS mm) holds no voxel of the image; "
                "move it onto the image."
            )
        steps = zip(most, oriented.spacing, spec.spacing, strict=True)
        crop = _trimmed(outer, inner, [side * _ratio(step, target) for side, step, target in steps])
    return Grid(source, axes, flips, oriented, crop, _resampled(oriented, crop, spec.spacing))


def _trimmed(outer: Slices, inner: Slices, most: Sequence[float]) -> Slices:
    """``outer`` without what is more than ``most`` voxels, from both sides alike, down to ``inner`` at the least."""
    sides = []
    for whole, core, limit in zip(outer, inner, most, strict=True):
        limit += 1e-6  # 48 * 0.7 / 0.7 is less than 48
        fits = core.stop - core.start <= limit < inf
        excess = max(0, whole.stop - whole.start - int(limit)) if fits else 0
        before = min(core.start - whole.start, max(excess // 2, excess - (whole.stop - core.stop)))
        sides.append(slice(whole.start + before, whole.stop - (excess - before)))
    return sides[0], sides[1], sides[2]


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
        if side > 1:  # one slice holds nothing to interpolate between
            count = max(1, round(side / _ratio(step, target)))
        shape.append(count)
        spacing.append(side * step / count)
        first.append(box.start + (side / count - 1) / 2)
    origin = oriented.point(_triple(first))
    return Geometry((shape[0], shape[1], shape[2]), _triple(spacing), origin, oriented.direction)


def _ratio(step: float, target: float | None) -> float:
    """Voxels of the image to one of the prepared grid."""
    return 1.0 if target is None or abs(step / target - 1) <= SAME_SPACING else target / step


def _triple(values: list[float]) -> Triple:
    return values[0], values[1], values[2]
