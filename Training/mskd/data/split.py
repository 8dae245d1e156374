"""Patient-wise division of a data set into training, validation and test cases."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mskd.data.dataset import Case, Dataset
from mskd.errors import InputError
from mskd.files import write_text
from mskd.spec import Strict, validate


class Split(Strict):
    """Case ids of each part, and the seed that drew them."""

    seed: int
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    validation: tuple[str, ...]
    test: tuple[str, ...]

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


def split_cases(dataset: Dataset, seed: int, validation: float, test: float) -> Split:
    """Draw whole patients into three parts; the same data set and seed always give the same split.

    Args:
        validation: Share of the patients to choose models on, 0 to 1.
        test: Share of the patients to report on; training never reads their files.

    Raises:
        InputError: too few patients to give each wanted part at least one.
    """
    patients: dict[str, list[Case]] = {}
    for case in dataset.labelled:
        patients.setdefault(case.patient, []).append(case)
    order = sorted(patients)
    random.Random(seed).shuffle(order)
    counts = [max(1, round(share * len(order))) if share > 0 else 0 for share in (validation, test)]
    if sum(counts) >= len(order):
        raise InputError(
            f"{dataset.path}: {len(order)} labelled patients cannot give {counts[0]} for validation, {counts[1]} for "
            "test and at least one for training; add cases or lower the shares in [split]."
        )

    def ids(chosen: list[str]) -> tuple[str, ...]:
        return tuple(sorted(case.id for patient in chosen for case in patients[patient]))

    first, second = counts[0], sum(counts)
    return Split(seed=seed, validation=ids(order[:first]), test=ids(order[first:second]), train=ids(order[second:]))
