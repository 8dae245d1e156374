"""A box in the patient, as a person sees it in Slicer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mskd.errors import SettingsError
from mskd.image.geometry import Geometry, Triple


@dataclass(frozen=True)
class Region:
    """An axis-aligned box: ``minimum`` and ``maximum`` corner, (x, y, z) in **RAS** millimetres.

    Raises:
        SettingsError: a corner that is not finite, or a minimum that is not below its maximum.
    """

    minimum: Triple
    maximum: Triple

    def __post_init__(self) -> None:
        if len(self.minimum) != 3 or len(self.maximum) != 3:
            raise SettingsError("A region of interest has three numbers for each corner: x, y, z in RAS mm.")
        for axis, low, high in zip("xyz", self.minimum, self.maximum, strict=True):
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise SettingsError(
                    f"The region of interest runs from {low:g} to {high:g} mm along {axis}: "
                    "its minimum must be below its maximum."
                )

    @classmethod
    def parse(cls, text: str) -> Region:
        """From ``"xmin,xmax,ymin,ymax,zmin,zmax"``, RAS mm.

        Raises:
            SettingsError: not six numbers, or an empty box.
        """
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 6:
            raise SettingsError(
                f"The region of interest is '{text}': six numbers are needed, xmin,xmax,ymin,ymax,zmin,zmax in RAS mm."
            )
        return cls((numbers[0], numbers[2], numbers[4]), (numbers[1], numbers[3], numbers[5]))

    def lps(self, margin: float = 0.0) -> tuple[Triple, Triple]:
        """The lower and upper corner in LPS mm, grown by ``margin`` mm on every side."""
        (x0, y0, z0), (x1, y1, z1) = self.minimum, self.maximum
        return (-x1 - margin, -y1 - margin, z0 - margin), (-x0 + margin, -y0 + margin, z1 + margin)

    def mask(self, geometry: Geometry, part: tuple[slice, slice, slice] | None = None) -> NDArray[np.bool_]:
        """Which voxels [z, y, x] of a grid, or of a ``part`` of it, have their centre inside the box."""
        lower, upper = self.lps()
        affine = geometry.index_to_point
        ranges = [range(*(part[axis] if part else slice(None)).indices(geometry.shape[axis])) for axis in range(3)]
        inside = np.ones([len(steps) for steps in ranges], dtype=bool)
        indices = [
            np.array(steps, dtype=np.float64).reshape([-1 if axis == own else 1 for axis in range(3)])
            for own, steps in enumerate(ranges)
        ]
        for axis in range(3):
            place = affine[axis, 3] + sum(affine[axis, 2 - own] * indices[own] for own in range(3))
            inside &= (place >= lower[axis] - 1e-6) & (place <= upper[axis] + 1e-6)
        return inside
