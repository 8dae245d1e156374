"""The plain folder beyond what holds for all: names, tables, channels, DICOM cases, and faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import SimpleITK as sitk
from written_layouts import scan, write, write_folder

from mskd.data import open_dataset
from mskd.data.prepared import read_case
from mskd.errors import InputError


def test_files_keep_their_values_and_patients_their_cases(tmp_path: Path) -> None:
    dataset = open_dataset(write_folder(tmp_path).path)
    assert dataset.values == {0: 0, 1: 1, 3: 2, 700: 3}
    assert dataset.mirror_pairs == ((1, 2),)
    assert [case.patient for case in dataset.cases] == ["p1", "p1", "c.v2", "later"]


def test_without_names_the_values_found_in_all_files_are_named(tmp_path: Path) -> None:
    for name, values in (("a", (1, 4)), ("b", (9,))):
        write(tmp_path / "images" / f"{name}.nii.gz", scan(0))
        write(tmp_path / "labels" / f"{name}.nii.gz", scan(0, values))
    dataset = open_dataset(tmp_path)
    assert [(label.value, label.name) for label in dataset.labels] == [(1, "label 1"), (2, "label 4"), (3, "label 9")]
    assert dataset.file_values == (1, 4, 9)


@pytest.mark.parametrize("labelled", ["scan", "scan_0000"])
def test_numbers_are_channels_if_labels_carry_the_name_without(tmp_path: Path, labelled: str) -> None:
    for number in range(2):
        write(tmp_path / "images" / f"scan_{number:04d}.mha", scan(number))
    write(tmp_path / "labels" / f"{labelled}.mha", scan(0, (1,)))
    dataset = open_dataset(tmp_path)
    assert len(dataset.channels) == (2 if labelled == "scan" else 1)
    assert [case.id for case in dataset.cases] == (["scan"] if labelled == "scan" else ["scan_0000", "scan_0001"])
    image, _ = read_case(dataset, dataset.cases[0])
    assert len(image.array) == len(dataset.channels)


def test_named_channels_and_an_ignored_label(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.nii.gz", sitk.JoinSeries([scan(0), scan(1)]))
    write(tmp_path / "labels" / "a.nii.gz", scan(0, (1, 2)))
    (tmp_path / "channels.csv").write_text("0,CT\n1,PET\n")
    (tmp_path / "labels.json").write_text(json.dumps({"tumour": 2, "ignore": 1}))
    dataset = open_dataset(tmp_path)
    assert [channel.modality for channel in dataset.channels] == ["CT", "PT"]
    assert (dataset.ignore, dataset.labels[0].name) == (1, "tumour")
    assert len(read_case(dataset, dataset.cases[0])[0].array) == 2


def test_a_case_may_be_a_folder_of_dicom_files(tmp_path: Path) -> None:
    volume = sitk.Cast(scan(0), sitk.sitkInt16)
    (tmp_path / "images" / "patient1").mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(volume.GetDepth()):
        one = volume[:, :, z]
        x, y, height = volume.TransformIndexToPhysicalPoint((0, 0, z))
        for key, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0060": "CT",
            "0008|0018": f"1.2.5.{z}",
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.4",
            "0020|0013": str(z),
            "0020|0032": f"{x}\\{y}\\{height}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            one.SetMetaData(key, value)
        writer.SetFileName(str(tmp_path / "images" / "patient1" / f"{z}.dcm"))
        writer.Execute(one)
    write(tmp_path / "labels" / "patient1.nii.gz", scan(0, (1,)))
    dataset = open_dataset(tmp_path)
    image, labels = read_case(dataset, dataset.cases[0])
    assert labels is not None
    assert image.array.shape == (1, 5, 8, 10)


def test_companions_and_hidden_files_are_no_cases(tmp_path: Path) -> None:
    made = write_folder(tmp_path)
    assert (tmp_path / "images" / "later.raw").is_file() or (tmp_path / "images" / "later.zraw").is_file()
    (tmp_path / "images" / "._a.nii.gz").touch()
    assert len(open_dataset(tmp_path).cases) == len(made.labelled) + len(made.unlabelled)


def spoil_tables(folder: Path) -> None:
    (folder / "labels.json").write_text("{}")


def spoil_row(folder: Path) -> None:
    (folder / "labels.csv").write_text("1,left lung,red\n")


def spoil_value(folder: Path) -> None:
    (folder / "labels.csv").write_text("value,name\n1,left lung\n")


def repeat_value(folder: Path) -> None:
    (folder / "labels.csv").write_text("1,left lung\n1,right lung\n")


def repeat_name(folder: Path) -> None:
    write(folder / "images" / "a.mha", scan(0))


def lose_image(folder: Path) -> None:
    (folder / "images" / "b.nrrd").unlink()


def lose_images(folder: Path) -> None:
    (folder / "images").rename(folder / "scans")
    (folder / "images").mkdir()
    (folder / "labels").rename(folder / "masks")


def lose_labels(folder: Path) -> None:
    (folder / "labels").rename(folder / "masks")


def count_channels(folder: Path) -> None:
    (folder / "channels.csv").write_text("0,CT\n2,PET\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_tables, "labels.json: labels.csv is there too; keep one"),
        (spoil_row, r"has the row \['1', 'left lung', 'red'\]; each row holds two entries"),
        (spoil_value, "the entry 'value': 'name'; a label is one integer and a name"),
        (repeat_value, "one first entry in two rows"),
        (repeat_name, "a.nii.gz: a.mha has the same name; keep one"),
        (lose_image, "b.nrrd: there is no image for these labels"),
        (lose_images, "images: there is no image in this folder"),
        (lose_labels, "no case has labels"),
        (count_channels, "numbered 0, 1, 2"),
    ],
)
def test_faults_are_told(tmp_path: Path, spoil: object, sentence: str) -> None:
    spoil(write_folder(tmp_path).path)  # type: ignore[operator]
    with pytest.raises(InputError, match=sentence):
        open_dataset(tmp_path)


def test_a_case_with_fewer_channels_is_told(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001", "b_0000"):
        write(tmp_path / "images" / f"{name}.nii.gz", scan(0))
    write(tmp_path / "labels" / "a.nii.gz", scan(0, (1,)))
    with pytest.raises(InputError, match="case 'b' has 1 of 2 channels"):
        open_dataset(tmp_path)
