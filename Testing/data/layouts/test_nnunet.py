"""nnU-Net's raw layout beyond what holds for all: its faults, each with its sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from written_layouts import scan, write, write_nnunet

from mskd.data import LAYOUTS, open_dataset
from mskd.errors import InputError
from mskd.spec import IGNORE


def edit(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_channels_labels_and_ignored_voxels_are_as_described(tmp_path: Path) -> None:
    dataset = open_dataset(write_nnunet(tmp_path, ".nrrd").path)
    assert [channel.modality for channel in dataset.channels] == ["CT", "PT"]
    assert [path.name for path in dataset.cases[1].images] == ["liver_1_0000.nrrd", "liver_1_0001.nrrd"]
    assert dataset.cases[1].labels == tmp_path / "labelsTr" / "liver_1.nrrd"
    assert (dataset.ignore, dataset.values[3]) == (3, IGNORE)


def test_a_converted_task_that_still_lists_its_cases_is_no_decathlon(tmp_path: Path) -> None:
    edit(
        write_nnunet(tmp_path).path, training=[{"image": "imagesTr/liver_0.nii.gz", "label": "labelsTr/liver_0.nii.gz"}]
    )
    assert [name for name in LAYOUTS.names() if LAYOUTS[name].recognises(tmp_path)] == ["nnunet"]


def test_patients_keep_their_cases_together(tmp_path: Path) -> None:
    edit(write_nnunet(tmp_path).path, patients={"liver_0": "p", "liver_2": "p"})
    assert [case.patient for case in open_dataset(tmp_path).labelled] == ["p", "liver_1", "p"]
    edit(tmp_path, patients={"liver_9": "p"})
    with pytest.raises(InputError, match="patient of case 'liver_9', which is not there"):
        open_dataset(tmp_path)


def test_cases_may_be_listed_wherever_they_lie(tmp_path: Path) -> None:
    write_nnunet(tmp_path)
    files = [str(write(tmp_path / "else" / f"{name}.nii.gz", scan(1))) for name in ("ct", "pet")]
    label = str(write(tmp_path / "else" / "truth.nii.gz", scan(0, (1, 2))))
    edit(tmp_path, dataset={"one": {"images": files, "label": "else/truth.nii.gz"}})
    (case,) = open_dataset(tmp_path).labelled
    assert (case.id, [str(path) for path in case.images], str(case.labels)) == ("one", files, label)
    edit(tmp_path, dataset={"one": {"images": files}})
    with pytest.raises(InputError, match="a case is written"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "'whole' is a region of the values .* name each"),
        ({"file_ending": ".png"}, "'file_ending' is '.png'; images are read from .nii.* so convert"),
        ({"file_ending": [1]}, "'file_ending' is"),
        ({"channel_names": {"0": "CT"}}, "case 'liver_0' has 2 of 1 channels"),
        ({"channel_names": {"0": "CT", "1": "PET", "2": "MR"}}, "case 'liver_0' has 2 of 3 channels"),
        ({"channel_names": None}, "must map channel numbers to names"),
        ({"labels": None}, "labels must map values to names"),
        ({"dataset": 5}, "'dataset' has the entry 5"),
        ({"patients": ["x"]}, "the patients must map cases"),
    ],
)
def test_a_faulty_description_is_refused(tmp_path: Path, changes: dict, sentence: str) -> None:
    edit(write_nnunet(tmp_path).path, **changes)
    with pytest.raises(InputError, match=sentence):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        ("labelsTr/liver_1.nii.gz", "liver_1_0000.nii.gz: there are no labels for this image .* or move the image to"),
        ("imagesTr/liver_1_0000.nii.gz", r"case 'liver_1' has the channels \[1\]; .* without a gap"),
        ("imagesTr/liver_1_0001.nii.gz", "case 'liver_1' has 1 of 2 channels"),
    ],
)
def test_missing_files_are_told(tmp_path: Path, lost: str, sentence: str) -> None:
    (write_nnunet(tmp_path).path / lost).unlink()
    with pytest.raises(InputError, match=sentence):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("labelsTr/liver_9.nii.gz", r"liver_9.nii.gz: there is no image for these labels \(1 such files\)"),
        ("imagesTr/liver.nii.gz", "must end in the channel's number, as in liver_0000"),
    ],
)
def test_stray_files_are_told(tmp_path: Path, extra: str, sentence: str) -> None:
    write(write_nnunet(tmp_path).path / extra, scan(0))
    with pytest.raises(InputError, match=sentence):
        open_dataset(tmp_path)


def test_a_test_image_of_a_training_case_is_refused(tmp_path: Path) -> None:
    write_nnunet(tmp_path)
    for channel in range(2):
        write(tmp_path / "imagesTs" / f"liver_1_{channel:04d}.nii.gz", scan(0))
    with pytest.raises(InputError, match="case 'liver_1' is there more than once"):
        open_dataset(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    write_nnunet(tmp_path)
    (tmp_path / "labelsTr").rename(tmp_path / "labels")
    with pytest.raises(InputError, match="labelsTr: there is no such folder"):
        open_dataset(tmp_path)
