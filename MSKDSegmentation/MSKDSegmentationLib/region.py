"""The region of interest: a new one where it can be seen and dragged, and advice on when one is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from slicer.i18n import tr as _

SHARE = 0.5
MUCH_LARGER = 3.0


def fit_region(region: Any, volume: Any, view: tuple[float, float, float] | None) -> None:
    """Make a new markups ROI a box in the middle of the volume, in the world (RAS mm).

    Its sides are half the volume's, or those of ``view``, what the model sees at once, where that is smaller.
    """
    low, high = _bounds(volume)
    sides = (high - low) * SHARE
    region.SetCenter(*((low + high) / 2))
    region.SetSize(*(sides if view is None else np.minimum(sides, view)))
    if region.GetDisplayNode() is None:
        region.CreateDefaultDisplayNodes()


def advice(volume: Any, view: tuple[float, float, float] | None) -> str:
    """What to tell who has chosen no region: nothing, unless each side of the volume is much larger than ``view``."""
    low, high = _bounds(volume)
    if view is None or np.any(high - low < MUCH_LARGER * np.array(view)):
        return ""
    sides = " x ".join(f"{side:.0f}" for side in view)
    return _(
        "The volume is much larger than the {sides} mm that this model sees at once. If the model was made for a crop "
        "around an organ, create a region here and drag it there."
    ).format(sides=sides)


def _bounds(volume: Any) -> tuple[np.ndarray, np.ndarray]:
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    return bounds[::2], bounds[1::2]
