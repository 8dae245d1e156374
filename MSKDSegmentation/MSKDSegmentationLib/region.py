"""A new region of interest, put where it can be seen and dragged."""

from __future__ import annotations

from typing import Any

import numpy as np

SHARE = 0.5


def fit_region(region: Any, volume: Any) -> None:
    """Make a new markups ROI a box of half the volume's sides in the middle of it, in the world (RAS mm)."""
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    region.SetCenter(*((low + high) / 2))
    region.SetSize(*((high - low) * SHARE))
    if region.GetDisplayNode() is None:
        region.CreateDefaultDisplayNodes()
