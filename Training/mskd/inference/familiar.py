"""Does an image look like those that the network was trained on? Warnings where it does not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mskd.image.geometry import Geometry, Image
from mskd.inference.grid import Grid, InputSpec, make_grid
from mskd.inference.region import Region
from mskd.spec import Manifest
from mskd.spec.trainingdata import QUANTILES, ImageFacts, Span, TrainingData

SAMPLES = 40_000
"""Voxels of a channel that are looked at."""

LOW_SHARE, HIGH_SHARE = 1, 99
"""Percentiles of the training images between which a figure is no surprise."""

STRETCH = 1.25
"""How far beyond that a length may lie, as a factor."""

LOOSE_INTENSITY = 0.1
"""How far beyond that a quantile may lie, as a share of the image's own spread."""

LOOSE_DEGREES = 10.0


def image_facts(image: Image, spec: InputSpec, region: Region | None = None) -> ImageFacts:
    """Measure an image, or the part of it that a region leaves.

    Args:
        spec: Its orientation names the axes.
    """
    grid = make_grid(image.geometry, spec, region)
    z, y, x = (step * side for step, side in zip(grid.oriented.spacing, grid.crop_shape, strict=True))
    return ImageFacts(
        spacing=grid.oriented.spacing,
        extent=(z, y, x),
        tilt=_tilt(grid.oriented),
        mirrored=bool(np.linalg.det(image.geometry.matrix) < 0),
        intensities=tuple(_quantiles(channel) for channel in grid.view(image.array)),
    )


def summarise(images: Sequence[ImageFacts]) -> TrainingData:
    """What all training images have in common.

    Raises:
        ValueError: there is none.
    """
    if not images:
        raise ValueError("without images there is nothing to summarise")
    spacing = _spans(np.array([image.spacing for image in images]))
    extent = _spans(np.array([image.extent for image in images]))
    intensities = np.array([image.intensities for image in images])
    return TrainingData(
        cases=len(images),
        spacing=spacing,
        extent=extent,
        tilt=_short(float(np.percentile([image.tilt for image in images], HIGH_SHARE))),
        mirrored=tuple(sorted({image.mirrored for image in images})),
        intensities=tuple(_spans(intensities[:, channel]) for channel in range(intensities.shape[1])),
    )


def warnings(manifest: Manifest, image: Image, grid: Grid, region: Region | None) -> list[str]:
    """A sentence for each way in which the image does not look like the training data; none if those are not known.

    Intensities are compared over the region when it is as large as a training image, else over the whole image: what
    lies inside a small region says nothing of the others.
    """
    known = manifest.training_data
    if known is None:
        return []
    seen = image_facts(image, manifest, region)
    found = [*_spacing(known, seen, grid), *_extent(known, seen, manifest, region), *_direction(known, seen)]
    if region is not None and any(
        size < span.low / STRETCH for size, span in zip(seen.extent, known.extent, strict=True)
    ):
        seen = image_facts(image, manifest)
    return [*found, *_intensities(known, seen, manifest)]


def _spacing(known: TrainingData, seen: ImageFacts, grid: Grid) -> Iterator[str]:
    strange = [
        side > 1 and not span.low / STRETCH <= step <= span.high * STRETCH
        for step, span, side in zip(seen.spacing, known.spacing, grid.crop_shape, strict=True)
    ]
    if any(strange):
        yield (
            f"The voxels are {' x '.join(f'{step:.3g}' for step in seen.spacing)} mm (z, y, x), and those of the "
            f"{known.cases} training images {' x '.join(map(_range, known.spacing))} mm: small structures may be "
            "missed or blurred, so look at the result closely, or use an image of that spacing."
        )


def _extent(known: TrainingData, seen: ImageFacts, manifest: Manifest, region: Region | None) -> Iterator[str]:
    patch = (1, *manifest.patch) if manifest.dim == 2 else manifest.patch
    small, large = [], []
    for size, span, side, wanted, step in zip(
        seen.extent, known.extent, patch, manifest.spacing, known.spacing, strict=True
    ):
        # Of a larger image training saw windows, so a window is not too small.
        small.append(size < min(span.low, side * (wanted or step.low)) / STRETCH)
        large.append(size > span.high * STRETCH)
    what = "The image" if region is None else "The region of interest, with its margin,"
    spans = " x ".join(_range(span, ".0f") for span in known.extent)
    measured = (
        f"{what} covers {' x '.join(f'{size:.0f}' for size in seen.extent)} mm (z, y, x), and the {known.cases} "
        f"training images {spans} mm: "
    )
    if any(large):
        yield measured + "structures may be found where there are none; give a region of interest of that size."
    elif any(small):
        yield measured + "structures may be cut off or taken for others; give more of the patient, if there is more."


def _direction(known: TrainingData, seen: ImageFacts) -> Iterator[str]:
    """The order of the axes is no surprise: images are turned before the network sees them."""
    if seen.tilt > known.tilt + LOOSE_DEGREES:
        yield (
            f"The image is tilted by {seen.tilt:.0f} degrees against the patient's axes, and the training images by "
            f"{known.tilt:.0f} at most: resample it along the patient's axes if the result looks wrong."
        )
    if seen.mirrored not in known.mirrored:
        kinds = {True: "left-handed", False: "right-handed"}
        yield (
            f"The axes of the file are {kinds[seen.mirrored]}, and those of the training images "
            f"{kinds[not seen.mirrored]}: if left and right look swapped, the header of the file is wrong."
        )


def _intensities(known: TrainingData, seen: ImageFacts, manifest: Manifest) -> Iterator[str]:
    # What is scaled by its own mean and deviation may have any unit: only another order of magnitude is strange then.
    factor = 2.0 if manifest.normalization.name == "zscore" else 1.0
    for channel, values, spans in zip(manifest.channels, seen.intensities, known.intensities, strict=True):
        loose = LOOSE_INTENSITY * (values[-1] - values[0])
        lows = [min(span.low - loose, span.low / factor) for span in spans]
        highs = [max(span.high + loose, span.high * factor) for span in spans]
        if any(not low <= value <= high for low, value, high in zip(lows, values, highs, strict=True)):
            shares = ", ".join(f"{share:g} % below {value:.4g}" for share, value in zip(QUANTILES, values, strict=True))
            usual = ", ".join(_range(span, ".4g") for span in spans)
            yield (
                f"The intensities of {channel.name} inside the body ({shares}) are not those of the {known.cases} "
                f"training images ({usual}): check that the image is of the right kind and in the right unit."
            )


def _quantiles(channel: NDArray[np.generic]) -> tuple[float, float, float]:
    """Percentiles inside the body, which is what is brighter than the mean: it needs no unit and no threshold."""
    stride = max(1, math.ceil((channel.size / SAMPLES) ** (1 / 3)))
    values = channel[::stride, ::stride, ::stride].astype(np.float64).ravel()
    body = values[values > values.mean()]
    low, middle, high = np.percentile(body if body.size else values, QUANTILES)
    return float(low), float(middle), float(high)


def _tilt(oriented: Geometry) -> float:
    """The largest angle in degrees between an axis and the patient's axis that it runs along."""
    nearest = np.abs(oriented.matrix).max(axis=0) / np.linalg.norm(oriented.matrix, axis=0)
    return float(np.degrees(np.arccos(np.clip(nearest.min(), 0, 1))))


def _spans(values: NDArray[np.float64]) -> tuple[Span, Span, Span]:
    """Over the images (first axis) of three figures (second axis)."""
    lows, highs = np.percentile(values, [LOW_SHARE, HIGH_SHARE], axis=0)
    z, y, x = (Span(low=_short(low), high=_short(high)) for low, high in zip(lows, highs, strict=True))
    return z, y, x


def _short(value: float) -> float:
    """Five digits: it is a figure for people, too."""
    return float(f"{value:.5g}")


def _range(span: Span, digits: str = ".3g") -> str:
    low, high = format(span.low, digits), format(span.high, digits)
    return low if low == high else f"{low} to {high}"
