"""Images without content, and images in other units than their modality's or their neighbours'."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from mskd.data.check.finding import Finding, fold_common, listed
from mskd.data.check.measure import Measured
from mskd.data.check.robust import centre_and_spread, robust_z
from mskd.data.check.voxels import ChannelMeasure
from mskd.data.dataset import Dataset

NEARLY_CONSTANT = 0.995
# Hounsfield units: air is -1000, fat -100, water 0, metal up to 3071 (12 bits), or to some 30,000 when extended.
HIGHEST_HU, NARROWEST_HU = 4000.0, 100.0
CUT = 5.0
HU_FLOOR = 150.0  # of the ends of the range
SCALE_FLOOR = 0.5  # of the logarithm of its width: 12 times wider or narrower is remarkable


def intensity_findings(dataset: Dataset, cases: Sequence[Measured]) -> list[Finding]:
    """Every rule on intensities, channel by channel."""
    readable = [case for case in cases if case.channels]
    found = [finding for case in readable for finding in _content(dataset, case)]
    empty = empty_images(found)
    rest = [case for case in readable if case.id not in empty]
    for index, channel in enumerate(dataset.channels):
        if channel.modality == "CT":
            wrong = _not_hounsfield(rest, index, channel.name)
            usual = [case for case in rest if not _why_not_hounsfield(case.channels[index])]
            found += [*wrong, *_hounsfield_outliers(usual, index, channel.name)]
        else:
            found += _scales(rest, index, channel.name)
    return found


def empty_images(findings: Sequence[Finding]) -> set[str]:
    """The cases whose image shows next to nothing, so that nothing else can be said of its intensities."""
    rules = ("constant-image", "nearly-constant-image")
    return {case for finding in findings if finding.rule in rules for case in finding.cases}


def _content(dataset: Dataset, case: Measured) -> list[Finding]:
    found = []
    names = [channel.name for channel in dataset.channels]
    for name, measured in zip(names, case.channels, strict=True):
        if measured.minimum == measured.maximum:
            text = f"Every voxel of channel '{name}' is {measured.minimum:g}; export the image again."
            found.append(Finding("constant-image", "error", (case.id,), text, measured.minimum))
        elif measured.commonest > NEARLY_CONSTANT:
            text = (
                f"{measured.commonest:.1%} of channel '{name}' is one and the same value (more than "
                f"{NEARLY_CONSTANT:.1%} is almost nothing to learn from); look at the image."
            )
            found.append(Finding("nearly-constant-image", "warning", (case.id,), text, measured.commonest))
    for (first, one), (second, other) in combinations(zip(names, case.channels, strict=True), 2):
        if one.digest == other.digest and one.minimum < one.maximum:
            text = f"Channels '{first}' and '{second}' are the same voxels; put each channel's own file in its place."
            found.append(Finding("identical-channels", "error", (case.id,), text, f"{first} = {second}"))
    return found


def _not_hounsfield(cases: Sequence[Measured], index: int, name: str) -> list[Finding]:
    wrong = {case.id: reason for case in cases if (reason := _why_not_hounsfield(case.channels[index]))}
    remedy = "rescale by the DICOM's slope and intercept, or declare another modality than CT"
    if len(wrong) > len(cases) / 2:
        ids = tuple(wrong)
        text = (
            f"Channel '{name}' is declared CT, but {len(ids)} of {len(cases)} cases ({listed(ids)}) are not in "
            f"Hounsfield units ({wrong[ids[0]]}); {remedy}."
        )
        return [Finding("not-hounsfield", "warning", () if len(ids) == len(cases) else ids, text)]
    return [
        Finding(
            "not-hounsfield",
            "warning",
            (case,),
            f"Channel '{name}' is declared CT, but is not in Hounsfield units ({reason}); {remedy}.",
            reason,
        )
        for case, reason in wrong.items()
    ]


def _why_not_hounsfield(channel: ChannelMeasure) -> str:
    if channel.minimum >= 0:
        return f"no value below 0, the lowest is {channel.minimum:g}, where fat is -100 and air -1000"
    if channel.high - channel.low < NARROWEST_HU:
        return (
            f"99 % of the values lie within {channel.high - channel.low:.3g}, where fat and muscle alone differ by 150"
        )
    if channel.high > HIGHEST_HU:
        return f"values reach {channel.high:g}, where bone ends at about 2000"
    return ""


def _hounsfield_outliers(cases: Sequence[Measured], index: int, name: str) -> list[Finding]:
    ends = np.array([(case.channels[index].low, case.channels[index].high) for case in cases]).reshape(-1, 2)
    z = robust_z(ends, HU_FLOOR)
    found = []
    for case, (low, high), deviation in zip(cases, ends, z, strict=True):
        if np.abs(deviation).max() > CUT:
            usual, _ = centre_and_spread(ends, HU_FLOOR)
            text = (
                f"Channel '{name}' runs from {low:.4g} to {high:.4g} HU (0.5th to 99.5th percentile), usually from "
                f"{usual[0]:.4g} to {usual[1]:.4g}; see that its rescaling slope and intercept were applied."
            )
            found.append(Finding("intensity-range", "warning", (case.id,), text, f"{low:.4g} to {high:.4g}"))
    return fold_common(found, len(cases), f"have another range of HU in channel '{name}'")


def _scales(cases: Sequence[Measured], index: int, name: str) -> list[Finding]:
    widths = np.array([case.channels[index].high - case.channels[index].low for case in cases])
    z = robust_z(np.log(np.maximum(widths, 1e-12)), SCALE_FLOOR)
    usual = float(np.median(widths)) if len(widths) else 0.0
    odd = np.flatnonzero(np.abs(z) > CUT)
    if not odd.size:
        return []
    ids = tuple(cases[int(row)].id for row in odd)
    low, high = widths[odd].min(), widths[odd].max()
    spread = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    text = (
        f"The values of channel '{name}' have another scale in {len(ids)} of {len(cases)} cases ({listed(ids)}: they "
        f"spread over {spread}, usually over {usual:.3g}); normalise each image by its own mean and deviation (zscore)."
    )
    return [Finding("intensity-scale", "note", ids, text, spread)]
