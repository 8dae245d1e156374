"""From an image to labels on its own grid: preparation, the network in windows, restoration."""

from mskd.inference.grid import Grid, InputSpec, make_grid
from mskd.inference.preprocess import Prepared, prepare_labels, preprocess
from mskd.inference.region import Region

__all__ = ["Grid", "InputSpec", "Prepared", "Region", "make_grid", "prepare_labels", "preprocess"]
