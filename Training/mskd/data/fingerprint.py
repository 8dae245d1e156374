"""A hash of what a run reads: the same files prepared the same way give the same hash wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from mskd.data.store import StoredCases


def fingerprint(parts: Mapping[str, StoredCases]) -> str:
    """SHA-256 over the ids and content keys of the cases of each part ("train", "validation", ...), in order of id."""
    digest = hashlib.sha256()
    for part, cases in sorted(parts.items()):
        for case in sorted(cases.cases, key=lambda case: case.id):
            digest.update(f"{part} {case.key} {case.id}\n".encode())
    return digest.hexdigest()
