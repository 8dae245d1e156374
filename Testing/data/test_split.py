"""Folds, splits that come with the data set or from a file, and what is refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from mskd.data import Case, Dataset, Split, open_dataset, split_cases
from mskd.data.split import check_split
from mskd.errors import InputError


@pytest.fixture
def patients() -> Dataset:
    """23 patients with one to four cases each, in no order."""
    rng = random.Random(0)
    cases = [
        Case(f"p{patient}_{index}", (Path("x.nii"),), Path("y.nii"), f"p{patient}")
        for patient in range(23)
        for index in range(rng.randint(1, 4))
    ]
    rng.shuffle(cases)
    return Dataset("many", Path("many"), (), (), tuple(cases))


def owners(ids: tuple[str, ...]) -> set[str]:
    return {name.split("_")[0] for name in ids}


@pytest.mark.parametrize("folds", [2, 5, 18])
@pytest.mark.parametrize("seed", range(5))
def test_every_patient_validates_in_one_fold_and_the_test_cases_in_none(
    patients: Dataset, folds: int, seed: int
) -> None:
    splits = [split_cases(patients, seed, 0.1, 0.2, folds, fold) for fold in range(folds)]
    whole = split_cases(patients, seed, 0.1, 0.2)
    validated: list[str] = []
    for split in splits:
        assert split.test == whole.test
        parts = [owners(part) for part in (split.train, split.validation, split.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 23
        assert len(split.train + split.validation + split.test) == len(patients.cases)
        validated += sorted(parts[1])
    assert sorted(validated) == sorted({case.patient for case in patients.cases} - owners(whole.test))
    assert max(map(len, map(owners, (split.validation for split in splits)))) <= -(-18 // folds)
    assert splits[0] != split_cases(patients, seed + 1, 0.1, 0.2, folds, 0)


def test_more_folds_than_patients_are_refused(patients: Dataset) -> None:
    with pytest.raises(InputError, match="18 patients that do not test cannot be divided into 19 folds"):
        split_cases(patients, 0, 0.1, 0.2, 19, 0)


def describe(folder: Path, split: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "split": split}))


def test_the_data_set_s_own_split_is_respected(tiny_dataset: Path) -> None:
    describe(tiny_dataset, {"train": [f"case_{index}" for index in range(7)], "val": ["case_7", "case_8", "case_9"]})
    dataset = open_dataset(tiny_dataset)
    split = split_cases(dataset, 0, 0.1, 0.2)
    assert split.validation == ("case_7", "case_8", "case_9")
    assert len(split.test) == 2
    assert len(split.train) == 5
    folds = [split_cases(dataset, 0, 0.1, 0.2, 4, fold) for fold in range(4)]
    assert all(fold.test == split.test for fold in folds)
    assert sorted(name for fold in folds for name in fold.validation) == sorted(split.train + split.validation)
    describe(tiny_dataset, {"test": ["case_0", "case_1", "case_2"]})
    split = split_cases(open_dataset(tiny_dataset), 0, 0.1, 0.2)
    assert split.test == ("case_0", "case_1", "case_2")
    assert len(split.validation) == 1


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ({"val": "case_0"}, "must map parts to lists"),
        (["case_0"], "must map parts to lists"),
        ({"holdout": ["case_0"]}, "names the part 'holdout'; the parts are"),
        ({"val": ["case_77"]}, "lists 'case_77' under 'val', which the data set does not have"),
        ({"val": [{}]}, "lists {} under 'val', which the data set does not have"),
        ({"train": ["case_0"], "val": ["case_0"]}, "lists 'case_0' under 'val', which is listed twice"),
    ],
)
def test_a_faulty_split_of_the_data_set_is_refused(tiny_dataset: Path, split: object, sentence: str) -> None:
    describe(tiny_dataset, split)
    with pytest.raises(InputError, match=sentence):
        open_dataset(tiny_dataset)


def test_a_data_set_s_own_split_must_not_divide_a_patient(tiny_dataset: Path) -> None:
    describe(tiny_dataset, {"val": ["case_0"]})
    dataset = open_dataset(tiny_dataset)
    cases = tuple(replace(case, patient="p" if index < 2 else case.id) for index, case in enumerate(dataset.cases))
    with pytest.raises(InputError, match="divides patient 'p': 'case_1' is not in validation"):
        split_cases(replace(dataset, cases=cases), 0, 0.1, 0.2)


def test_a_split_from_a_file_must_suit_the_data_set(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    split = Split(seed=0, train=("case_0", "case_1"), validation=("case_2",), test=())
    assert check_split(dataset, split) == split
    unlabelled = (replace(dataset.cases[0], labels=None), *dataset.cases[1:])
    with pytest.raises(InputError, match="'case_0' of the split has no labels"):
        check_split(replace(dataset, cases=unlabelled), split)
    twins = tuple(replace(case, patient="p") for case in dataset.cases[:3])
    with pytest.raises(InputError, match="patient 'p' has cases in train and in validation"):
        check_split(replace(dataset, cases=twins), split)
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"seed": 0, "train": ["case_0"], "validation": ["case_0"], "test": []}))
    with pytest.raises(InputError, match="'case_0' is there more than once"):
        Split.load(path)
