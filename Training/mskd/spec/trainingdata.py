"""What the images that a network was trained on looked like, so that one that looks otherwise can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mskd.spec.base import Strict

QUANTILES = (5.0, 50.0, 95.0)
"""Percentiles of the voxels inside the body that describe an image's intensities."""

Length = Annotated[float, Field(gt=0)]
Degrees = Annotated[float, Field(ge=0, le=180)]


class Span(Strict):
    """Where a figure lies in (nearly) all training images: their 1st and 99th percentile."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Span:
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


class ImageFacts(Strict):
    """One image as it came, its axes named (z, y, x) in the model's orientation.

    Args:
        spacing: Millimetres.
        extent: Field of view, millimetres.
        tilt: Degrees between the axes and the patient's, the largest.
        mirrored: Whether the axes of the file are left-handed.
        intensities: For each channel the ``QUANTILES`` inside the body, in the file's unit.
    """

    spacing: tuple[Length, Length, Length]
    extent: tuple[Length, Length, Length]
    tilt: Degrees
    mirrored: bool
    intensities: tuple[tuple[float, float, float], ...]


class TrainingData(Strict):
    """The same figures of all training images together.

    Args:
        mirrored: The kinds of ``ImageFacts.mirrored`` that occurred.
    """

    cases: Annotated[int, Field(ge=1)]
    spacing: tuple[Span, Span, Span]
    extent: tuple[Span, Span, Span]
    tilt: Degrees
    mirrored: Annotated[tuple[bool, ...], Field(min_length=1, max_length=2)]
    intensities: tuple[tuple[Span, Span, Span], ...]
