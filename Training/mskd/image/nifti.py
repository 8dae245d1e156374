"""The faults of a NIfTI file that ITK passes over in silence.

A truncated or corrupt body is filled up with zeros, a spacing of 0 becomes 1, a NaN becomes 0; nothing is said.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskd.errors import InputError

NIFTI1_HEADER = 348
NIFTI2_HEADER = 540
FLOATS = {16: "f4", 64: "f8"}
CHUNK = 1 << 22


@dataclass(frozen=True)
class _Header:
    spacing: tuple[float, ...]
    offset: int
    voxels: int
    voxel_bytes: int
    floating: np.dtype | None


def check_nifti(path: Path) -> None:
    """Refuse a NIfTI file whose spacing is not positive, whose voxels are not all there, or are not finite.

    A file that is not NIfTI at all passes: the reader that follows says so.

    Raises:
        InputError: with the fault and its remedy.
    """
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as stream:
            start = stream.read(NIFTI2_HEADER)
            header = _parse(start)
            if header is None:
                return
            if not all(math.isfinite(step) and step != 0 for step in header.spacing):
                listed = ", ".join(f"{step:g}" for step in header.spacing)
                raise InputError(
                    f"{path}: the spacing (x, y, z) is ({listed}) mm; each must be above 0, so correct the header."
                )
            present, bad = _count(stream, start, header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise InputError(f"{path}: is truncated or damaged ({fault}); copy or export it again.") from fault
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror or fault}).") from fault
    if present < header.voxels * header.voxel_bytes:
        raise InputError(
            f"{path}: is truncated ({present} of {header.voxels * header.voxel_bytes} bytes of voxels); copy or export "
            "it again."
        )
    if bad:
        raise InputError(
            f"{path}: {bad} of {header.voxels} voxels are NaN or infinite; replace them, for instance by the value of "
            "air."
        )


def _count(stream: io.BufferedIOBase, start: bytes, header: _Header) -> tuple[int, int]:
    """Bytes of voxels that are there, and voxels that are not finite."""
    if header.offset > len(start):
        stream.read(header.offset - len(start))
    rest, present, bad = start[header.offset :], 0, 0
    while chunk := rest + stream.read(CHUNK):
        whole = len(chunk) - len(chunk) % header.voxel_bytes
        if not whole:
            break
        rest, present = chunk[whole:], present + whole
        if header.floating is not None:
            values = np.frombuffer(chunk[:whole], dtype=header.floating)
            bad += values.size - int(np.count_nonzero(np.isfinite(values)))
    return present, bad


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _parse(start: bytes) -> _Header | None:
    """What the header says, or None if it is none of NIfTI's (or its voxels lie in another file)."""
    for order in "<>":
        if len(start) >= NIFTI1_HEADER and struct.unpack_from(order + "i", start)[0] == NIFTI1_HEADER:
            sides = struct.unpack_from(order + "8h", start, 40)
            kind, bits = struct.unpack_from(order + "2h", start, 70)
            steps = struct.unpack_from(order + "8f", start, 76)
            offset = struct.unpack_from(order + "f", start, 108)[0]
            detached = start[344:347] == b"ni1"
        elif len(start) >= NIFTI2_HEADER and struct.unpack_from(order + "i", start)[0] == NIFTI2_HEADER:
            kind, bits = struct.unpack_from(order + "2h", start, 12)
            sides = struct.unpack_from(order + "8q", start, 16)
            steps = struct.unpack_from(order + "8d", start, 104)
            offset = struct.unpack_from(order + "q", start, 168)[0]
            detached = start[4:7] == b"ni2"
        else:
            continue
        if detached or not 1 <= sides[0] <= 7 or bits < 8 or not 0 <= offset < 1 << 30:
            return None
        floating = np.dtype(order + FLOATS[kind]) if kind in FLOATS else None
        voxels = math.prod(max(side, 1) for side in sides[1 : sides[0] + 1])
        return _Header(steps[1 : min(sides[0], 3) + 1], int(offset), voxels, bits // 8, floating)
    return None
