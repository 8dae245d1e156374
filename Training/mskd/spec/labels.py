"""A label: the number in the voxels, and what it means to a person and to DICOM."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mskd.spec.base import Strict

LONGEST_NAME = 64
IGNORE = 255
"""In the label maps of a data set: a voxel that neither teaches nor counts. A data set has at most 254 labels."""
Byte = Annotated[int, Field(ge=0, le=255)]


class Code(Strict):
    """A coded concept (DICOM PS3.3 section 8.8): scheme designator, code value, code meaning."""

    scheme: str = Field(min_length=1, max_length=16)
    value: str = Field(min_length=1, max_length=64)
    meaning: str = Field(min_length=1, max_length=64)


class Terminology(Strict):
    """How a segment is coded in DICOM SEG and in Slicer's terminology."""

    category: Code
    type: Code
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None


class Label(Strict):
    """One foreground label of a model; background is 0 and is never listed.

    Args:
        value: The voxel value, 1 to 255.
        name: Shown to the user, unique within a model.
        color: Red, green, blue, each 0 to 255.
        terminology: DICOM codes, where they are known.
    """

    value: Annotated[int, Field(ge=1, le=255)]
    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    color: tuple[Byte, Byte, Byte]
    terminology: Terminology | None = None
