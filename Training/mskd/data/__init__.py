"""Data sets to train on: layouts, splits, prepared cases, patches and their augmentation."""

from mskd.data.dataset import LAYOUTS, Case, Dataset, open_dataset
from mskd.data.split import Split, split_cases

__all__ = ["LAYOUTS", "Case", "Dataset", "Split", "open_dataset", "split_cases"]
