"""The faults of a NIfTI file that ITK passes over in silence: a truncated or corrupt body, a spacing of 0."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from mskd.errors import InputError

NIFTI1_HEADER = 348
NIFTI2_HEADER = 540
CHUNK = 1 << 22


def check_nifti(path: Path) -> None:
    """Refuse a NIfTI file whose spacing is not positive or whose voxels are not all there.

    A file that is not NIfTI at all passes: the reader that follows says so.

    Raises:
        InputError: with the fault and its remedy.
    """
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as stream:
            header = stream.read(NIFTI2_HEADER)
            parsed = _parse(header)
            if parsed is None:
                return
            spacing, expected = parsed
            if not all(math.isfinite(step) and step != 0 for step in spacing):
                listed = ", ".join(f"{step:g}" for step in spacing)
                raise InputError(
                    f"{path}: the spacing (x, y, z) is ({listed}) mm; each must be above 0, so correct the header."
                )
            length = len(header)
            while chunk := stream.read(CHUNK):
                length += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise InputError(f"{path}: is truncated or damaged ({fault}); copy or export it again.") from fault
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror or fault}).") from fault
    if length < expected:
        raise InputError(f"{path}: is truncated ({length} of {expected} bytes); copy or export it again.")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _parse(header: bytes) -> tuple[tuple[float, ...], int] | None:
    """Spacing (x, y, z; as many as there are axes) and the number of bytes the file needs; None if not NIfTI."""
    for order in "<>":
        if len(header) >= NIFTI1_HEADER and struct.unpack_from(order + "i", header)[0] == NIFTI1_HEADER:
            sides = struct.unpack_from(order + "8h", header, 40)
            bits = struct.unpack_from(order + "h", header, 72)[0]
            steps = struct.unpack_from(order + "8f", header, 76)
            offset = struct.unpack_from(order + "f", header, 108)[0]
            detached = header[344:347] == b"ni1"
        elif len(header) >= NIFTI2_HEADER and struct.unpack_from(order + "i", header)[0] == NIFTI2_HEADER:
            bits = struct.unpack_from(order + "h", header, 14)[0]
            sides = struct.unpack_from(order + "8q", header, 16)
            steps = struct.unpack_from(order + "8d", header, 104)
            offset = struct.unpack_from(order + "q", header, 168)[0]
            detached = header[4:7] == b"ni2"
        else:
            continue
        if not 1 <= sides[0] <= 7 or not math.isfinite(offset):
            return None
        voxels = math.prod(max(side, 1) for side in sides[1 : sides[0] + 1])
        return steps[1 : min(sides[0], 3) + 1], 0 if detached else int(offset) + voxels * bits // 8
    return None
