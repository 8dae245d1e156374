"""A hash of what was trained on: the same voxels and labels give the same fingerprint wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mskd.data.prepared import PreparedCase


def fingerprint(cases: Sequence[PreparedCase]) -> str:
    """SHA-256 over ids, images and labels of the prepared cases, in order of id."""
    digest = hashlib.sha256()
    for case in sorted(cases, key=lambda case: case.id):
        digest.update(case.id.encode())
        for array in (case.image, case.labels):
            if array is not None:
                digest.update(str(array.shape).encode() + np.ascontiguousarray(array).data)
    return digest.hexdigest()
