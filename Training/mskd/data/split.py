"""Patient-wise division of a data set into training, validation and test cases."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from mskd.data.dataset import Case, Dataset
from mskd.data.parts import Part
from mskd.errors import InputError
from mskd.files import write_text
from mskd.spec import Strict, validate

PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Split(Strict):
    """Case ids of each part, and the seed and fold that drew them."""

    seed: int
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    folds: int = 0
    fold: int = 0

    @model_validator(mode="after")
    def _disjoint(self) -> Split:
        repeated = [name for name, times in Counter(self.train + self.validation + self.test).items() if times > 1]
        if repeated:
            raise ValueError(f"case '{min(repeated)}' is there more than once; a case belongs to one part")
        return self

    def save(self, path: Path) -> None:
        """Write the split as JSON, whole or not at all."""
        write_text(path, json.dumps(self.model_dump(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read a saved split.

        Raises:
            InputError: missing, not JSON, or with other keys.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as fault:
            raise InputError(f"{path}: no readable split ({fault}); give the split.json of a run.") from fault
        return validate(cls, data, source=str(path), error=InputError)


def split_cases(dataset: Dataset, seed: int, validation: float, test: float, folds: int = 0, fold: int = 0) -> Split:
    """Divide whole patients into three parts; the same data set and seed always give the same split.

    Where the data set comes with test cases, they are kept; else a share of the patients is drawn, the same one for
    every fold. Validation is the fold of all others, or what the data set names, or a drawn share.

    Args:
        validation: Share of the patients to choose models on, 0 to 1.
        test: Share of the patients to report on; training never reads their files.
        folds: Parts into which the patients that do not test are divided, each of which validates once; 0 for none.
        fold: Which of them validates, from 0.

    Raises:
        InputError: too few patients to give each wanted part at least one, or the data set divides a patient.
    """
    patients: dict[str, list[Case]] = {}
    for case in dataset.labelled:
        patients.setdefault(case.patient, []).append(case)
    own = {part: _patients(dataset, patients, part) for part in ("validation", "test")}
    order = sorted(patients)
    random.Random(seed).shuffle(order)
    free = [patient for patient in order if patient not in own["validation"] | own["test"]]
    wanted = [0 if own[part] else _count(share, order) for part, share in (("validation", validation), ("test", test))]
    if sum(wanted) >= len(free):
        raise InputError(
            f"{dataset.path}: {len(free)} labelled patients cannot give {wanted[0]} for validation, {wanted[1]} for "
            "test and at least one for training; add cases or lower the shares in [split]."
        )
    tested = own["test"] or set(free[wanted[0] : sum(wanted)])
    rest = [patient for patient in order if patient not in tested]
    if len(rest) < folds:
        raise InputError(f"{dataset.path}: {len(rest)} patients that do not test cannot be divided into {folds} folds.")
    validated = set(rest[fold::folds]) if folds else own["validation"] or set(free[: wanted[0]])

    def ids(chosen: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(case.id for patient in chosen for case in patients[patient]))

    return Split(
        seed=seed,
        train=ids(set(rest) - validated),
        validation=ids(validated),
        test=ids(tested),
        folds=folds,
        fold=fold,
    )


def check_split(dataset: Dataset, split: Split) -> Split:
    """The split, once it is known to suit the data set.

    Raises:
        InputError: a case that is not there or has no labels, or a patient in two parts.
    """
    owners: dict[str, str] = {}
    for part in PARTS:
        for case in dataset.select(getattr(split, part)):
            if case.labels is None:
                raise InputError(f"{dataset.path}: case '{case.id}' of the split has no labels; leave it out.")
            if owners.setdefault(case.patient, part) != part:
                raise InputError(
                    f"{dataset.path}: patient '{case.patient}' has cases in {owners[case.patient]} and in {part}; a "
                    "patient belongs to one part of a split."
                )
    return split


def _patients(dataset: Dataset, patients: Mapping[str, Sequence[Case]], part: Part) -> set[str]:
    """Whose cases the data set itself puts into a part."""
    named = set(dataset.parts.get(part, ()))
    found = {patient for patient, cases in patients.items() if any(case.id in named for case in cases)}
    for patient in sorted(found):
        outside = [case.id for case in patients[patient] if case.id not in named]
        if outside:
            raise InputError(
                f"{dataset.path}: the data set's own split divides patient '{patient}': '{outside[0]}' is not in "
                f"{part} with the others; give a split of your own with --split."
            )
    return found


def _count(share: float, patients: Sequence[str]) -> int:
    return max(1, round(share * len(patients))) if share > 0 else 0
