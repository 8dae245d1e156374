"""The classes: which occur too seldom, and where one has an unusual volume or loose voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mskd.data.check.finding import Finding, fold_common, listed
from mskd.data.check.measure import Measured
from mskd.data.check.robust import robust_z
from mskd.data.dataset import Dataset
from mskd.spec import Label

# Training, validation and test: a class of fewer patients cannot be in each.
PARTS = 3
CUT = 5.0
# Of the logarithm of the volume: 2.7 times more or less than usual is remarkable at the least.
VOLUME_FLOOR = 0.2
STRAY_MM = 20.0


def class_findings(dataset: Dataset, cases: Sequence[Measured], odd_grids: set[str]) -> list[Finding]:
    """Every rule on classes.

    Args:
        odd_grids: Cases whose spacing is in doubt, and with it their volumes.
    """
    usable = [case for case in cases if case.classes is not None]
    if not usable:
        return []
    named = {label.value for label in dataset.labels}
    empty = [case for case in usable if not named & set(case.classes or {})]
    found = [_empty(case) for case in empty]
    shown = [case for case in usable if case not in empty]
    for label in dataset.labels:
        having = [case for case in shown if label.value in (case.classes or {})]
        found += _presence(label, having, shown)
        found += _volumes(label, [case for case in having if case.id not in odd_grids])
        found += _loose(label, having)
    return found


def volumes(cases: Sequence[Measured], value: int) -> np.ndarray:
    """mL of a class in each case that has it."""
    return np.array([case.classes[value].volume_ml for case in cases if case.classes and value in case.classes])


def _empty(case: Measured) -> Finding:
    text = (
        "The label map is empty: every voxel is background, which training will believe; if nobody drew labels, list "
        "the case without any."
    )
    return Finding("empty-labels", "warning", (case.id,), text, 0)


def _presence(label: Label, having: Sequence[Measured], shown: Sequence[Measured]) -> list[Finding]:
    name = f"'{label.name}' (value {label.value})"
    if not having:
        text = f"{name} occurs in no case; add cases that show it, or remove it from the data set's labels."
        return [Finding("absent-class", "error", (), text, 0)]
    patients = {case.patient for case in having}
    ids = tuple(case.id for case in having)
    if len(patients) < PARTS:
        text = (
            f"{name} occurs in {len(patients)} patient{'s' if len(patients) > 1 else ''} only ({listed(ids)}): fewer "
            f"than {PARTS} cannot be in training, validation and test alike; add cases, or merge or remove the class."
        )
        return [Finding("rare-class", "warning", ids, text, len(patients))]
    missing = tuple(case.id for case in shown if case not in having)
    if not missing:
        return []
    text = (
        f"{name} is missing in {len(missing)} of {len(shown)} cases ({listed(missing)}); see that it is absent there, "
        "and not left out."
    )
    return [Finding("missing-class", "note", missing, text, len(missing))]


def _volumes(label: Label, having: Sequence[Measured]) -> list[Finding]:
    millilitres = volumes(having, label.value)
    z = robust_z(np.log(millilitres), VOLUME_FLOOR)
    usual = float(np.median(millilitres)) if len(millilitres) else 0.0
    found = [
        Finding(
            "class-volume",
            "warning",
            (case.id,),
            f"'{label.name}' has {volume:.3g} mL, usually {usual:.3g} ({deviation:+.1f} robust standard deviations of "
            f"the logarithm, within {CUT:g} is usual){_cut_off(case, label)}; look whether it is drawn wholly, and "
            "nothing else with it.",
            float(volume),
        )
        for case, volume, deviation in zip(having, millilitres, z, strict=True)
        if abs(deviation) > CUT
    ]
    return fold_common(found, len(having), f"have an unusual volume of '{label.name}'")


def _cut_off(case: Measured, label: Label) -> str:
    return ", and reaches the edge of the image" if (case.classes or {})[label.value].at_edge else ""


def _loose(label: Label, having: Sequence[Measured]) -> list[Finding]:
    found, near = [], []
    for case in having:
        measured = (case.classes or {})[label.value]
        if measured.stray > STRAY_MM:
            text = (
                f"'{label.name}' has a few voxels {measured.stray:.0f} mm away from the rest of it (islands of less "
                f"than 5 % within {STRAY_MM:g} mm are usual); erase them, or see which organ they belong to."
            )
            found.append(Finding("stray-voxels", "warning", (case.id,), text, round(measured.stray, 1)))
        elif measured.islands:
            near.append(case.id)
    if near:
        text = (
            f"'{label.name}' has small islands beside its main part in {len(near)} of {len(having)} cases "
            f"({listed(near)}); harmless if they are true."
        )
        found.append(Finding("islands", "note", tuple(near), text, len(near)))
    return found
