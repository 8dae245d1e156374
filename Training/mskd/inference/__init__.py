"""From an image to labels on its own grid: preparation, the network in windows, restoration."""

from mskd.inference.engine import Engine, Result
from mskd.inference.environment import keep_freed_memory, tune_process
from mskd.inference.grid import Grid, InputSpec, make_grid
from mskd.inference.preprocess import Prepared, prepare_labels, preprocess
from mskd.inference.region import Region

__all__ = [
    "Engine",
    "Grid",
    "InputSpec",
    "Prepared",
    "Region",
    "Result",
    "keep_freed_memory",
    "make_grid",
    "prepare_labels",
    "preprocess",
    "tune_process",
]
