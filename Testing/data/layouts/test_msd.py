"""The Decathlon's layout beyond what holds for all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from written_layouts import scan, write_msd

from mskd.data import open_dataset
from mskd.data.prepared import prepare_case, read_case
from mskd.errors import InputError
from mskd.image import read_image
from mskd.spec import IGNORE, Normalization
from mskd.training.rundata import RunInput


def edit(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_fourth_axis_holds_the_channels_in_order(tmp_path: Path) -> None:
    dataset = open_dataset(write_msd(tmp_path).path)
    assert [(channel.name, channel.modality) for channel in dataset.channels] == [("FLAIR", "MR"), ("T1w", "MR")]
    image = read_image(dataset.cases[0].images[0])
    assert image.array.shape == (2, 5, 8, 10)
    assert image.geometry.spacing == pytest.approx((3.0, 0.8, 0.7))
    assert not np.array_equal(image.array[0], image.array[1])


def test_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    edit(write_msd(tmp_path).path, modality={"0": "FLAIR"})
    dataset = open_dataset(tmp_path)
    with pytest.raises(InputError, match="2 channels, but the data set declares 1; mend the file, or the channels"):
        read_case(dataset, dataset.cases[0])


def test_an_ignored_label_is_none_of_the_labels(tmp_path: Path) -> None:
    edit(write_msd(tmp_path).path, labels={"background": 0, "ignore": 1, "tumour": 2})
    dataset = open_dataset(tmp_path)
    assert [(label.value, label.name) for label in dataset.labels] == [(1, "tumour")]
    assert (dataset.ignore, dataset.values) == (1, {0: 0, 2: 1, 1: IGNORE})
    prepared = prepare_case(dataset, dataset.cases[0], RunInput((None,) * 3, "LPS", Normalization(name="none")))
    assert prepared.labels is not None
    assert np.bincount(prepared.labels.ravel(), minlength=256)[[0, 1, IGNORE]].tolist() == [360, 20, 20]
    assert set(prepared.foreground) == {1}


def test_patients_of_the_description_are_kept(tmp_path: Path) -> None:
    made = write_msd(tmp_path)
    training = json.loads((tmp_path / "dataset.json").read_text())["training"]
    edit(made.path, training=[{**entry, "patient": "same"} for entry in training])
    assert {case.patient for case in open_dataset(tmp_path).labelled} == {"same"}


@pytest.mark.real_data
def test_real_data_sets_open_and_read(real_data_folder: Path) -> None:
    pairs = {"CHAOS_T2SPIR": ((3, 2),), "OpenKBP_HeadNeckCT": ((4, 3),), "Task04_Hippocampus": ()}
    for name, sides in pairs.items():
        dataset = open_dataset(real_data_folder / name)
        assert (dataset.mirror_pairs, dataset.one_sided) == (sides, ())
        image, labels = read_case(dataset, dataset.labelled[0])
        assert labels is not None
        assert len(image.array) == 1
        assert set(np.unique(labels.array)) <= {0, *(label.value for label in dataset.labels)}


def test_two_dimensional_files_are_volumes_of_one_slice(tmp_path: Path) -> None:
    import SimpleITK as sitk

    entries = []
    for suffix in ("nii.gz", "nrrd", "mha"):
        for part, image in (("imagesTr", scan(0)), ("labelsTr", scan(0, (1, 2)))):
            (tmp_path / part).mkdir(exist_ok=True)
            sitk.WriteImage(image[:, :, 0], str(tmp_path / part / f"{suffix[:3]}.{suffix}"))
        name = f"{suffix[:3]}.{suffix}"
        entries.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "a", "2": "b"}, "training": entries}))
    dataset = open_dataset(tmp_path)
    for case in dataset.cases:
        spec = RunInput((3.0, None, None), "LPS", Normalization(name="zscore"))
        assert prepare_case(dataset, case, spec).image.shape == (1, 1, 8, 10)
