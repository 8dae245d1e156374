"""Whether contenders with the same student did the same work: the share of voxels with the same label.

    python -m peers.agreement RESULT NAME=LABELS...

Their windows and interpolation differ, so it is not one.
"""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import SimpleITK as sitk


def main(result: str, *named: str) -> None:
    files = dict(entry.split("=", 1) for entry in named)
    arrays = {name: sitk.GetArrayFromImage(sitk.ReadImage(path)) for name, path in files.items()}
    shares = [
        {"between": [first, second], "equal": float(np.mean(arrays[first] == arrays[second]))}
        for first, second in combinations(arrays, 2)
    ]
    seen = {name: len(np.unique(array)) for name, array in arrays.items()}
    Path(result).write_text(json.dumps({"shares": shares, "labels_seen": seen}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
