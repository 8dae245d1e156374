"""The worker's messages: one JSON object a line. What comes in is validated, what goes out is built here."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from mskd.errors import SettingsError
from mskd.spec import Strict

PROTOCOL = 3
LONGEST_LINE = 1 << 20

RunId = Annotated[int, Field(ge=0)]
Point = tuple[float, float, float]


class Hello(Strict):
    """Who are you?"""

    type: Literal["hello"]


class Describe(Strict):
    """What does this model say of itself?"""

    type: Literal["describe"]
    id: RunId
    model: str


class Placement(Strict):
    """Where the voxels of a run lie: spacing (z, y, x) mm; origin (x, y, z) and direction (row-major) in LPS."""

    spacing: Point
    origin: Point
    direction: Annotated[tuple[float, ...], Field(min_length=9, max_length=9)]


class Box(Strict):
    """A region of interest: corners (x, y, z) in RAS mm."""

    minimum: Point
    maximum: Point


class Run(Strict):
    """Segment the array in ``input`` (.npy, [z, y, x] or [C, z, y, x]) and write uint8 labels to ``output``.

    With a region, ``output`` holds no more than the box of voxels around it: the result's ``box`` says which,
    [[first, end], ...] along z, y, x. All other labels are 0. Where ``uncertainty`` names a file too, it gets the
    entropy of the same voxels, uint8, in percent of the largest possible, 0 outside the region.
    """

    type: Literal["run"]
    id: RunId
    model: str
    device: str = "auto"
    input: str
    geometry: Placement
    output: str
    uncertainty: str | None = None
    region: Box | None = None


class Cancel(Strict):
    """Stop the run with this id."""

    type: Literal["cancel"]
    id: RunId


class Quit(Strict):
    """Stop whatever runs, and end."""

    type: Literal["quit"]


Request = Hello | Describe | Run | Cancel | Quit
_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="type")])


def parse_request(line: bytes) -> Request:
    """One line as a request.

    Raises:
        SettingsError: not JSON, not a known type, or fields that are missing, unknown or of the wrong kind.
    """
    if len(line) >= LONGEST_LINE:
        raise SettingsError(f"A message may have {LONGEST_LINE} bytes at most; send arrays as files.")
    try:
        return _REQUEST.validate_json(line)
    except ValidationError as invalid:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'message'}: {fault['msg']}" for fault in invalid.errors()]
        raise SettingsError(f"This message cannot be understood ({'; '.join(faults[:3])}).") from invalid
    except RecursionError as unfit:
        raise SettingsError("This message cannot be understood (it is nested too deeply).") from unfit


def request_id(line: bytes) -> int | None:
    """The id in a line that may be anything, so that its error can be addressed."""
    try:
        found = json.loads(line[:LONGEST_LINE]).get("id")
    except (ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def encode(message: dict[str, Any]) -> bytes:
    """One line. ASCII, so that no locale can harm it."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
