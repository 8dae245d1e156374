"""Evaluation over a data set, with an engine whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from torch import nn

from mskd.data import open_dataset
from mskd.data.phantom import make_phantom_dataset
from mskd.errors import Cancelled, InputError
from mskd.evaluation.run import evaluate, in_model_values, match_labels
from mskd.image import LabelMap, read_labels


class KnownEngine:
    """Answers case after case with its truth, changed by ``change``, in its own label values."""

    def __init__(self, truths, labels, change=lambda truth: truth):
        self.truths, self.change, self.asked = truths, change, 0
        manifest = SimpleNamespace(labels=labels, name="known", version="1.0.0")
        self.package = SimpleNamespace(manifest=manifest, fingerprint="a" * 64, load_network=lambda: nn.Linear(2, 3))

    def run(self, image, cancelled=None):
        labels = self.change(self.truths[self.asked]).astype(np.uint8)
        self.asked += 1
        report = {"device": "cpu", "versions": {"torch": "2"}, "milliseconds": {"total": 10.0}}
        return SimpleNamespace(labels=LabelMap(labels, image.geometry), report=report)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = make_phantom_dataset(
        tmp_path_factory.mktemp("phantom") / "set", 3, shape=(20, 24, 24), spacing=(8.0, 8.0, 8.0)
    )
    return open_dataset(folder)


@pytest.fixture
def truths(dataset):
    return [read_labels(case.labels).array for case in dataset.cases]


def test_a_perfect_engine_scores_one(dataset, truths):
    events = []
    table = evaluate(KnownEngine(truths, dataset.labels), dataset, dataset.cases, part="test", on_event=events.append)
    assert table.summary("mean", "dice").mean == 1.0
    assert table.summary("mean", "hd95").mean == 0.0
    assert [event.done for event in events] == [1, 2, 3]
    assert table.about["dataset"]["cases"] == [case.id for case in dataset.cases]
    assert table.about["model"] == {"name": "known", "version": "1.0.0", "fingerprint": "a" * 64, "parameters": 9}
    assert table.about["milliseconds_per_case"] == 10.0


def test_labels_are_matched_by_name_and_not_by_value(dataset, truths):
    values = [0, 3, 1, 2, 5, 4]  # the model's value of each of the data set's values
    order = sorted(dataset.labels, key=lambda label: values[label.value])
    labels = tuple(label.model_copy(update={"value": value}) for value, label in enumerate(order, start=1))
    engine = KnownEngine(truths, labels, change=lambda truth: np.take(values, truth))
    table = evaluate(engine, dataset, dataset.cases)
    assert table.labels == tuple(label.name for label in labels)
    assert table.summary("mean", "dice").mean == 1.0


def test_a_listener_gets_each_case_in_the_model_s_values(dataset, truths):
    values = [0, 3, 1, 2, 5, 4]
    order = sorted(dataset.labels, key=lambda label: values[label.value])
    labels = tuple(label.model_copy(update={"value": value}) for value, label in enumerate(order, start=1))
    engine = KnownEngine(truths, labels, change=lambda truth: np.take(values, truth))
    told = []
    evaluate(engine, dataset, dataset.cases, on_case=lambda *case: told.append(case))
    assert [case.id for case, *_ in told] == [case.id for case in dataset.cases]
    for _, image, truth, prediction in told:
        assert image.geometry == truth.geometry
        np.testing.assert_array_equal(truth.array, prediction.array)
    pairs = match_labels(labels, dataset.labels)
    assert in_model_values(np.array([0, 1, 5, 255], np.uint8), pairs).tolist() == [0, 3, 4, 255]


def test_a_missed_organ_counts_in_the_table(dataset, truths):
    engine = KnownEngine(truths, dataset.labels, change=lambda truth: np.where(truth == 5, 0, truth))
    table = evaluate(engine, dataset, dataset.cases)
    assert table.summary("pancreas", "dice").mean == 0.0
    assert table.summary("pancreas", "dice").cases == 3
    assert table.summary("mean", "dice").mean == pytest.approx(0.8)


def test_ignored_voxels_are_left_out_on_both_sides(dataset, truths, tmp_path):
    cases = []
    for case, truth in zip(dataset.cases, truths, strict=True):
        labels = sitk.ReadImage(str(case.labels))
        hidden = truth.copy()
        hidden[:10] = 77
        written = sitk.GetImageFromArray(hidden)
        written.CopyInformation(labels)
        sitk.WriteImage(written, str(tmp_path / f"{case.id}.nii.gz"))
        cases.append(replace(case, labels=tmp_path / f"{case.id}.nii.gz"))
    masked = replace(dataset, cases=tuple(cases), ignore=77)

    def wrong_where_ignored(truth):
        return np.concatenate([np.full_like(truth[:10], 4), truth[10:]])

    table = evaluate(KnownEngine(truths, dataset.labels, wrong_where_ignored), masked, masked.cases)
    seen = {label.name: any((truth[10:] == label.value).any() for truth in truths) for label in dataset.labels}
    assert any(seen.values())
    for name, there in seen.items():
        assert table.summary(name, "dice").mean == 1.0 if there else table.summary(name, "dice").cases == 0
        assert not there or table.summary(name, "volume_error_ml").mean == 0.0


def test_other_label_names_are_refused_with_both_sides(dataset):
    labels = (*dataset.labels[:4], dataset.labels[4].model_copy(update={"name": "duodenum"}))
    with pytest.raises(InputError, match=r"only in the model: duodenum; only in the data set: pancreas"):
        match_labels(labels, dataset.labels)


def test_nothing_to_measure_is_refused(dataset, truths):
    engine = KnownEngine(truths, dataset.labels)
    with pytest.raises(InputError, match="no case to evaluate"):
        evaluate(engine, dataset, ())
    with pytest.raises(InputError, match="no labels"):
        evaluate(engine, dataset, (replace(dataset.cases[0], labels=None),))


def test_cancelling_stops_before_the_next_case(dataset, truths):
    engine = KnownEngine(truths, dataset.labels)
    with pytest.raises(Cancelled):
        evaluate(engine, dataset, dataset.cases, cancelled=lambda: engine.asked == 1)
    assert engine.asked == 1


def test_a_label_file_on_another_grid_is_refused(dataset, truths, tmp_path):
    broken = replace(dataset.cases[0], images=(Path(dataset.cases[0].images[0]),), labels=tmp_path / "other.nii.gz")
    make_phantom_dataset(tmp_path / "set", 1, shape=(10, 12, 12), spacing=(8.0, 8.0, 8.0))
    broken.labels.write_bytes((tmp_path / "set/labelsTr/phantom_000.nii.gz").read_bytes())
    with pytest.raises(InputError, match="grid"):
        evaluate(KnownEngine(truths, dataset.labels), dataset, (broken,))
