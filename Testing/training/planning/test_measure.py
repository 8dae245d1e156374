"""The fingerprint: measured right, kept, the same however a file is turned, and without faulty cases where allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.data import Dataset, open_dataset
from mskd.data.arrays import ArrayStore
from mskd.errors import InputError
from mskd.training.planning.measure import measure_case, measure_cases


@pytest.fixture
def dataset(tiny_dataset: Path) -> Dataset:
    return open_dataset(tiny_dataset)


def arrays(dataset: Dataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    case = dataset.cases[index]
    image, labels = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (case.images[0], case.labels))
    return image, labels


def test_a_case_is_measured(dataset: Dataset) -> None:
    image, labels = arrays(dataset, 0)
    facts, intensities = measure_case(dataset, dataset.cases[0])
    assert (facts.shape, facts.spacing, facts.orientation) == ((12, 14, 16), (1.0, 1.0, 1.0), "LPS")
    assert sorted(intensities[0]) == sorted(image[labels > 0])
    channel = facts.channels[0]
    inside = image[labels > 0]
    assert channel.mean == pytest.approx(inside.mean(), rel=1e-5)
    assert channel.std == pytest.approx(inside.std(), rel=1e-5)
    assert [channel.low, channel.high] == pytest.approx(np.percentile(inside, [0.5, 99.5]))
    bright = facts.labels["bright"]
    assert (bright.voxels, bright.largest_piece) == ((labels == 1).sum(), 1.0)
    assert bright.millilitres == pytest.approx((labels == 1).sum() / 1000)
    assert bright.place == pytest.approx((np.nonzero(labels == 1)[2].mean() + 0.5) / 16)


def test_pieces_and_absent_labels(dataset: Dataset) -> None:
    path = dataset.cases[0].labels
    labels = np.zeros((12, 14, 16), np.uint8)
    labels[0:2, 0:3, 0:4] = 1  # 24 voxels
    labels[6:8, 6:8, 6:8] = 1  # 8 voxels
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(path))
    facts, _ = measure_case(dataset, dataset.cases[0])
    assert facts.labels.keys() == {"bright"}
    assert facts.labels["bright"].largest_piece == 0.75
    sitk.WriteImage(sitk.GetImageFromArray(labels * 0), str(path))
    facts, intensities = measure_case(dataset, dataset.cases[0])
    assert (facts.labels, facts.channels, intensities.shape) == ({}, (), (1, 0))


def test_a_turned_file_is_the_same_case(dataset: Dataset) -> None:
    before, _ = measure_case(dataset, dataset.cases[0])
    for path in (dataset.cases[0].images[0], dataset.cases[0].labels):
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "PIR"), str(path))
    after, _ = measure_case(dataset, dataset.cases[0])
    assert after.orientation == "PIR"
    assert after.model_copy(update={"orientation": "LPS"}) == before


def test_what_was_measured_is_kept(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArrayStore(tmp_path / "cache")
    plain = measure_cases(dataset, dataset.cases)
    assert plain == measure_cases(dataset, dataset.cases[::-1], store)
    monkeypatch.setattr("mskd.training.planning.measure.measure_case", pytest.fail)
    assert plain == measure_cases(dataset, dataset.cases, store)
    other = replace(dataset, cases=(replace(dataset.cases[0], id="other"),))
    assert measure_cases(other, other.cases, store).cases[0].id == "other"


def test_several_processes_measure_the_same(dataset: Dataset) -> None:
    assert measure_cases(dataset, dataset.cases, jobs=2) == measure_cases(dataset, dataset.cases)


def test_a_faulty_case_stops_or_is_left_out(dataset: Dataset) -> None:
    dataset.cases[2].images[0].write_bytes(b"not an image")
    with pytest.raises(InputError, match="case_2"):
        measure_cases(dataset, dataset.cases)
    found = measure_cases(dataset, dataset.cases, bad_cases="skip")
    assert [case.id for case in found.cases] == [f"case_{index}" for index in range(10) if index != 2]
    with pytest.raises(InputError, match="none of the 1 training cases can be read"):
        measure_cases(dataset, dataset.cases[2:3], bad_cases="skip")
