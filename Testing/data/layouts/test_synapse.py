"""Synapse (BTCV) beyond what holds for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_layouts import scan, write, write_synapse

from mskd.data import open_dataset
from mskd.data.prepared import read_case
from mskd.errors import InputError

EIGHT = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")


def test_organs_have_their_official_values_and_sides(tmp_path: Path) -> None:
    dataset = open_dataset(write_synapse(tmp_path).path)
    assert dataset.labels[5].name == "liver"
    assert dataset.mirror_pairs == ((3, 2), (13, 12))
    assert dataset.one_sided == ()
    assert open_dataset(tmp_path / "RawData").labelled[0].images == dataset.labelled[0].images


def test_eight_organs_can_be_kept_and_the_rest_is_background(tmp_path: Path) -> None:
    whole = open_dataset(write_synapse(tmp_path).path)
    dataset = whole.select_labels(EIGHT)
    assert [(label.value, label.name) for label in dataset.labels] == list(enumerate(EIGHT, start=1))
    assert dataset.mirror_pairs == ((3, 4),)
    before, after = read_case(whole, whole.cases[0])[1], read_case(dataset, dataset.cases[0])[1]
    assert before is not None
    assert after is not None
    official = [0, 8, 4, 3, 2, 6, 11, 1, 7]
    for value, old in enumerate(official):
        if value:
            np.testing.assert_array_equal(after.array == value, before.array == old)
    assert set(np.unique(after.array)) == set(range(9))
    again = dataset.select_labels(["liver"])
    assert again.values == {**dict.fromkeys(range(14), 0), 6: 1}


@pytest.mark.parametrize("names", [[], ["liver", "liver"], ["liver", "hearth"]])
def test_labels_that_cannot_be_kept_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match="cannot be chosen; name at least one of spleen, right kidney"):
        open_dataset(write_synapse(tmp_path).path).select_labels(names)


def test_faults_are_told(tmp_path: Path) -> None:
    training = write_synapse(tmp_path).path / "RawData" / "Training"
    (training / "label" / "label0002.nii.gz").unlink()
    with pytest.raises(InputError, match=r"img0002.nii.gz: there are no labels .* move the image to .*Testing/img"):
        open_dataset(tmp_path)
    (training / "img" / "img0002.nii.gz").unlink()
    stray = write(training / "label" / "label0009.nii.gz", scan(0, (1,)))
    with pytest.raises(InputError, match=r"label0009.nii.gz: there is no image"):
        open_dataset(tmp_path)
    stray.unlink()
    write(training / "img" / "localiser.nii.gz", scan(0))
    assert [case.id for case in open_dataset(tmp_path).labelled] == ["img0001", "img0021"]
