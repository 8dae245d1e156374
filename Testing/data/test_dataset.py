"""The Decathlon's layout, patient-wise splits, and the faults of a data set, each with its sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import SimpleITK as sitk

from mskd.data import Split, open_dataset, split_cases
from mskd.data.prepared import prepare_case, require_every_class
from mskd.errors import InputError
from mskd.spec import Normalization
from mskd.training.rundata import RunInput

SPEC = RunInput((1.0, 1.0, 1.0), "LPS", Normalization(name="zscore"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_decathlon_layout_is_read(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    assert [(label.value, label.name) for label in dataset.labels] == [(1, "bright"), (2, "dark")]
    assert (dataset.channels[0].modality, dataset.licence, len(dataset.labelled)) == ("CT", "CC0", 10)
    assert dataset.cases[0].id == "case_0"


def test_cases_without_labels_are_unlabelled(tiny_dataset: Path) -> None:
    (tiny_dataset / "imagesTs").mkdir()
    (tiny_dataset / "imagesTr/case_9.nii.gz").rename(tiny_dataset / "imagesTs/extra.nii.gz")
    training = json.loads((tiny_dataset / "dataset.json").read_text())["training"]
    edit(tiny_dataset, training=training[:9], test=["./imagesTs/extra.nii.gz"])
    dataset = open_dataset(tiny_dataset)
    assert [case.id for case in dataset.unlabelled] == ["extra"]
    assert prepare_case(dataset, dataset.unlabelled[0], SPEC).labels is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": []}, "no case has labels"),
        ({"labels": ["a"]}, "labels must map values to names"),
        ({"labels": {"0": "background"}}, "names 0 labels beside background"),
        ({"labels": {str(value): f"l{value}" for value in range(1, 256)}}, "names 255 labels .* has 1 to 254 labels"),
        ({"labels": {"1": "a", "2": "ignore", "3": "Ignore"}}, "at most one 'ignore'"),
        ({"labels": {"a": 70000}}, "has the value 70000; the largest is 65535"),
        ({"labels": {"a": 1, "b": 1}}, "two labels have the value '1'"),
        ({"labels": {"background": 0, "a": "x"}}, "a label is one integer and a name"),
        ({"labels": {"background": 0, "a": [1, 2]}}, "a region of the values"),
        ({"labels": {"1": ""}}, "a name of 1 to 64 characters"),
        ({"labels": {"1": "x" * 65}}, "a name of 1 to 64 characters"),
        ({"labels": {"1": "a", "2": "a"}}, "two labels have the name 'a'"),
        ({"modality": []}, "must map channel numbers to names"),
        ({"modality": {"first": "CT"}}, "are numbered 0, 1, 2"),
        ({"modality": {str(index): "CT" for index in range(17)}}, "at most 16"),
        ({"training": 5}, "'training' is 5; it must be a list"),
        ({"training": [{"label": "x"}]}, "a case is written"),
        ({"training": [5]}, "a case is written"),
        ({"test": "imagesTs/x.nii.gz"}, "'test' is .* it must be a list"),
        ({"training": [{"image": "imagesTr/none.nii.gz"}]}, "is not there"),
        ({"training": [{"image": "imagesTr/case_0.nii.gz"}] * 2}, "more than once"),
    ],
)
def test_a_faulty_description_is_refused(tiny_dataset: Path, changes: dict, sentence: str) -> None:
    edit(tiny_dataset, **changes)
    with pytest.raises(InputError, match=sentence):
        open_dataset(tiny_dataset)


def test_folders_that_are_no_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="none of the known layouts"):
        open_dataset(tmp_path)
    (tmp_path / "case.nii.gz").touch()
    with pytest.raises(InputError, match="this is a file; give the folder"):
        open_dataset(tmp_path / "case.nii.gz")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match="not readable JSON"):
        open_dataset(tmp_path)


def test_a_split_is_complete_disjoint_and_repeatable(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    split = split_cases(dataset, 3, 0.2, 0.3)
    assert sorted(split.train + split.validation + split.test) == [case.id for case in dataset.cases]
    assert (len(split.train), len(split.validation), len(split.test)) == (5, 2, 3)
    assert split == split_cases(dataset, 3, 0.2, 0.3)
    assert split != split_cases(dataset, 4, 0.2, 0.3)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split


def test_a_patient_is_never_divided(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    cases = tuple(replace(case, patient=f"p{index // 2}") for index, case in enumerate(dataset.cases))
    for seed in range(20):
        split = split_cases(replace(dataset, cases=cases), seed, 0.2, 0.4)
        for part in (split.train, split.validation, split.test):
            numbers = {int(name.removeprefix("case_")) for name in part}
            assert numbers == {number ^ 1 for number in numbers}


def test_too_few_patients_are_refused(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    with pytest.raises(InputError, match="10 labelled patients cannot give"):
        split_cases(dataset, 0, 0.5, 0.5)
    with pytest.raises(InputError, match="is not in this data set"):
        dataset.select(["case_0", "other"])


def rewrite(path: Path, change: object) -> None:
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(change(image), str(path))  # type: ignore[operator]


def test_a_label_value_without_a_name_is_refused(tiny_dataset: Path) -> None:
    rewrite(tiny_dataset / "labelsTr/case_1.nii.gz", lambda image: image * 3)
    dataset = open_dataset(tiny_dataset)
    with pytest.raises(InputError, match=r"value 3, which the data set does not name"):
        prepare_case(dataset, dataset.cases[1], SPEC)


def test_image_and_label_on_different_grids_are_refused(tiny_dataset: Path) -> None:
    def move(image: sitk.Image) -> sitk.Image:
        image.SetOrigin((5.0, 0.0, 0.0))
        return image

    rewrite(tiny_dataset / "labelsTr/case_1.nii.gz", move)
    dataset = open_dataset(tiny_dataset)
    with pytest.raises(InputError, match=r"its grid .* is not that of its image"):
        prepare_case(dataset, dataset.cases[1], SPEC)


def test_a_class_that_no_training_case_shows_is_refused(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    prepared = [prepare_case(dataset, case, SPEC) for case in dataset.cases[:3]]
    require_every_class(prepared, dataset.labels)
    without = [replace(case, foreground={1: case.foreground[1]}) for case in prepared]
    with pytest.raises(InputError, match=r"'dark' .value 2. occurs in none of the 3 training cases"):
        require_every_class(without, dataset.labels)
