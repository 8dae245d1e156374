"""KiTS beyond what holds for all: the year, and how the volumes lie."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from written_layouts import as_kits, scan, write, write_json, write_kits, write_kits19

from mskd.data import open_dataset
from mskd.data.prepared import prepare_case, read_case
from mskd.errors import InputError
from mskd.spec import Normalization
from mskd.training.rundata import RunInput


def test_volumes_come_upright_whatever_their_storage(tmp_path: Path) -> None:
    dataset = open_dataset(write_kits19(tmp_path).path)
    case = dataset.cases[1]
    with gzip.open(case.images[0]) as stream:
        rows = np.array(struct.unpack("<12f", stream.read(348)[280:328])).reshape(3, 4)
    assert rows[:, :3] == pytest.approx(np.array([[0, 0, -0.7], [0, -0.8, 0], [-3.0, 0, 0]]))  # KiTS19's own affine
    prepared = prepare_case(dataset, case, RunInput((None,) * 3, "LPS", Normalization(name="none")))
    assert prepared.spacing == pytest.approx((3.0, 0.8, 0.7))
    np.testing.assert_array_equal(prepared.image[0], sitk.GetArrayFromImage(scan(1)))
    np.testing.assert_array_equal(prepared.labels, sitk.GetArrayFromImage(scan(0, (1, 2))))


def mark_by_json(folder: Path) -> None:
    write_json(folder / "kits23.json", [])


def mark_by_instances(folder: Path) -> None:
    (folder / "case_00001" / "instances").mkdir()


def mark_by_number(folder: Path) -> None:
    write_kits(folder, ("case_00400", "case_00588"), (1, 2, 3))


@pytest.mark.parametrize("mark", [mark_by_json, mark_by_instances, mark_by_number])
def test_each_sign_of_kits23_is_seen(tmp_path: Path, mark: object) -> None:
    write_kits(tmp_path, ("case_00000", "case_00001"), (1, 2))
    assert open_dataset(tmp_path).name == "KiTS19"
    mark(tmp_path)  # type: ignore[operator]
    dataset = open_dataset(tmp_path)
    assert (dataset.name, dataset.labels[-1].name) == ("KiTS23", "cyst")


def test_a_cyst_in_what_looks_like_kits19_is_refused(tmp_path: Path) -> None:
    write_kits(tmp_path, ("case_00000", "case_00001"), (1, 2, 3))
    dataset = open_dataset(tmp_path)
    with pytest.raises(InputError, match="value 3, which the data set does not name"):
        read_case(dataset, dataset.cases[0])


def test_images_that_were_not_fetched_are_told(tmp_path: Path) -> None:
    write_kits(tmp_path, ("case_00000", "case_00001"), (1, 2))
    write(tmp_path / "case_00002" / "segmentation.nii.gz", as_kits(scan(0, (1, 2))))
    with pytest.raises(InputError, match=r"case_00002: there is no imaging.nii.gz in it \(1 such cases of 3\); fetch"):
        open_dataset(tmp_path)
