"""Prepared cases on disk: the same as in memory, prepared once, again when anything that decides them changes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.data import Dataset, open_dataset
from mskd.data.arrays import ArrayStore
from mskd.data.fingerprint import fingerprint
from mskd.data.prepared import PreparedCase, prepare_case
from mskd.data.store import StoredCases, case_key, prepare_cases
from mskd.errors import Cancelled, InputError
from mskd.events import Event
from mskd.spec import Normalization
from mskd.training.rundata import RunInput

SPEC = RunInput((1.0, 1.0, 1.0), "LPS", Normalization(name="zscore"))


@pytest.fixture
def dataset(tiny_dataset: Path) -> Dataset:
    return open_dataset(tiny_dataset)


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    return ArrayStore(tmp_path / "cache")


def equal(first: PreparedCase, second: PreparedCase) -> bool:
    return (
        (first.id, first.spacing, first.foreground.keys()) == (second.id, second.spacing, second.foreground.keys())
        and first.facts == second.facts
        and np.array_equal(first.image, second.image)
        and ((first.labels is None) == (second.labels is None))
        and (first.labels is None or np.array_equal(first.labels, second.labels))
        and all(np.array_equal(voxels, second.foreground[value]) for value, voxels in first.foreground.items())
    )


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cases that were prepared, in order."""
    prepared: list[str] = []

    def counting(dataset: Dataset, case: object, spec: object) -> PreparedCase:
        prepared.append(case.id)  # type: ignore[attr-defined]
        return prepare_case(dataset, case, spec)  # type: ignore[arg-type]

    monkeypatch.setattr("mskd.data.store.prepare_case", counting)
    return prepared


def test_stored_cases_are_those_prepared_in_memory(dataset: Dataset, store: ArrayStore) -> None:
    unlabelled = replace(dataset.cases[9], labels=None)
    wanted = (*dataset.cases[:3], unlabelled)
    cases = prepare_cases(dataset, wanted, SPEC, store)
    assert [case.id for case in cases] == [case.id for case in wanted]
    assert all(equal(case, prepare_case(dataset, source, SPEC)) for case, source in zip(cases, wanted, strict=True))
    assert not cases[0].image.flags.writeable
    assert cases[3].labels is None
    assert cases[3].foreground == {}
    assert [case.id for case in cases[1:3]] == ["case_1", "case_2"]


def test_an_entry_without_facts_of_the_image_stays_in_use(
    dataset: Dataset, store: ArrayStore, count: list[str]
) -> None:
    cases = prepare_cases(dataset, dataset.cases[:1], SPEC, store)
    assert cases[0].facts is not None
    record = cases.cases[0].folder / "entry.json"
    entry = json.loads(record.read_text())
    del entry["about"]["facts"]
    record.write_text(json.dumps(entry))
    assert prepare_cases(dataset, dataset.cases[:1], SPEC, store)[0].facts is None
    assert count == ["case_0"]


def test_cases_pickle_as_paths(dataset: Dataset, store: ArrayStore) -> None:
    cases = prepare_cases(dataset, dataset.cases[:2], SPEC, store)
    assert len(cases[0].image.tobytes()) > 10_000
    packed = pickle.dumps(cases)
    assert len(packed) < 2000
    assert equal(pickle.loads(packed)[1], cases[1])


def test_a_case_is_prepared_once(dataset: Dataset, store: ArrayStore, count: list[str]) -> None:
    prepare_cases(dataset, dataset.cases[:3], SPEC, store)
    assert sorted(count) == ["case_0", "case_1", "case_2"]
    seen: list[Event] = []
    prepare_cases(dataset, dataset.cases[:4], SPEC, store, on_event=seen.append)
    assert count[3:] == ["case_3"]
    assert [(event.done, event.total) for event in seen] == [(3, 4), (4, 4)]


def rewrite_image(dataset: Dataset) -> Dataset:
    path = dataset.cases[1].images[0]
    sitk.WriteImage(sitk.ReadImage(str(path)) * 2, str(path))
    return dataset


def rewrite_labels(dataset: Dataset) -> Dataset:
    path = dataset.cases[1].labels
    sitk.WriteImage(sitk.ReadImage(str(path)) > 0, str(path))
    return dataset


def rename_label(dataset: Dataset) -> Dataset:
    first, *rest = dataset.labels
    return replace(dataset, labels=(first.model_copy(update={"name": "other"}), *rest))


@pytest.mark.parametrize(
    ("change", "spec", "again"),
    [
        (lambda dataset: dataset, SPEC, 0),
        (rewrite_image, SPEC, 1),
        (rewrite_labels, SPEC, 1),
        (rename_label, SPEC, 3),
        (lambda dataset: dataset, replace(SPEC, spacing=(1.0, 1.0, 2.0)), 3),
        (lambda dataset: dataset, replace(SPEC, orientation="RAS"), 3),
        (lambda dataset: dataset, replace(SPEC, normalization=Normalization(name="none")), 3),
    ],
)
def test_what_changed_is_prepared_again(
    dataset: Dataset, store: ArrayStore, count: list[str], change: Callable, spec: RunInput, again: int
) -> None:
    before = prepare_cases(dataset, dataset.cases[:3], SPEC, store)
    count.clear()
    changed = change(dataset)
    after = prepare_cases(changed, changed.cases[:3], spec, store)
    assert len(count) == again
    assert all(equal(case, prepare_case(changed, changed.cases[i], spec)) for i, case in enumerate(after))
    assert (fingerprint({"train": before}) == fingerprint({"train": after})) == (again == 0)


def test_a_damaged_entry_is_prepared_again(dataset: Dataset, store: ArrayStore, count: list[str]) -> None:
    cases = prepare_cases(dataset, dataset.cases[:3], SPEC, store)
    whole = np.array(cases[1].image)
    (cases.cases[1].folder / "image.npy").write_bytes(b"\0" * (cases.cases[1].folder / "image.npy").stat().st_size)
    count.clear()
    again = prepare_cases(dataset, dataset.cases[:3], SPEC, store)
    assert count == ["case_1"]
    assert np.array_equal(again[1].image, whole)


def test_a_data_file_beside_its_header_decides_too(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "image.mhd"
    sitk.WriteImage(sitk.ReadImage(str(dataset.cases[0].images[0])), str(path))
    case = replace(dataset.cases[0], images=(path,))
    before = case_key(dataset, case, SPEC)
    raw = path.with_suffix(".raw")
    raw.write_bytes(raw.read_bytes()[::-1])
    assert case_key(dataset, case, SPEC) != before


def test_several_processes_prepare_the_same(dataset: Dataset, store: ArrayStore) -> None:
    seen: list[Event] = []
    cases = prepare_cases(dataset, dataset.cases, SPEC, store, jobs=2, on_event=seen.append)
    assert [event.done for event in seen] == list(range(11))
    assert all(equal(case, prepare_case(dataset, dataset.cases[i], SPEC)) for i, case in enumerate(cases))


def _prepare(folder: Path, cache: Path) -> None:
    dataset = open_dataset(folder)
    prepare_cases(dataset, dataset.cases, SPEC, ArrayStore(cache))


def test_two_runs_may_prepare_at_the_same_time(tiny_dataset: Path, dataset: Dataset, store: ArrayStore) -> None:
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=_prepare, args=(tiny_dataset, store.folder)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
    assert [run.exitcode for run in runs] == [0, 0]
    assert len(list(store.folder.iterdir())) == 10
    cases = prepare_cases(dataset, dataset.cases, SPEC, store)
    assert all(equal(case, prepare_case(dataset, dataset.cases[i], SPEC)) for i, case in enumerate(cases))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_corrupt_case_stops_or_is_listed(dataset: Dataset, store: ArrayStore, jobs: int) -> None:
    dataset.cases[4].images[0].write_bytes(b"not an image")
    dataset.cases[6].images[0].unlink()
    with pytest.raises(InputError, match=r"case_[46]\.nii\.gz"):
        prepare_cases(dataset, dataset.cases, SPEC, store, jobs=jobs)
    cases = prepare_cases(dataset, dataset.cases, SPEC, store, jobs=jobs, bad_cases="skip")
    assert [case.id for case in cases] == [f"case_{index}" for index in range(10) if index not in (4, 6)]
    assert [problem.case for problem in cases.problems] == ["case_4", "case_6"]
    assert all(f"{problem.case}.nii.gz" in problem.reason for problem in cases.problems)


def test_a_full_disk_is_no_fault_of_a_case(
    dataset: Dataset, store: ArrayStore, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with full_disk(5000), pytest.raises(InputError, match=r"cannot be written .*Make room"):
        prepare_cases(dataset, dataset.cases, SPEC, store, bad_cases="skip")
    assert list(store.folder.iterdir()) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_preparing_can_be_cancelled(dataset: Dataset, store: ArrayStore, jobs: int) -> None:
    seen: list[Event] = []
    with pytest.raises(Cancelled, match="what was prepared is kept"):
        prepare_cases(
            dataset, dataset.cases, SPEC, store, jobs=jobs, on_event=seen.append, cancelled=lambda: len(seen) > 3
        )
    assert 3 <= len(list(store.folder.iterdir())) < 10


def test_cases_take_further_arrays(dataset: Dataset, store: ArrayStore) -> None:
    cases = prepare_cases(dataset, dataset.cases[:2], SPEC, store)
    asked: list[str] = []

    def logits(case: PreparedCase) -> np.ndarray:
        asked.append(case.id)
        return np.stack([case.image[0], -case.image[0]]).astype(np.float16)

    first = cases.extend("logits", "teacher 1", logits)
    again = cases.extend("logits", "teacher 1", logits)
    assert asked == ["case_0", "case_1"]
    for case in (first[1], again[1], pickle.loads(pickle.dumps(again))[1]):
        assert case.logits is not None
        assert case.logits.dtype == np.float16
        np.testing.assert_array_equal(case.logits[1], -case.image[0].astype(np.float16))
    cases.extend("logits", "teacher 2", logits)
    assert asked[2:] == ["case_0", "case_1"]
    assert cases[0].logits is None
    with pytest.raises(Cancelled):
        cases.extend("logits", "teacher 3", logits, cancelled=lambda: True)


def test_the_fingerprint_knows_content_and_part_but_not_order(dataset: Dataset, store: ArrayStore) -> None:
    def prepared(*numbers: int) -> StoredCases:
        return prepare_cases(dataset, [dataset.cases[number] for number in numbers], SPEC, store)

    whole = fingerprint({"train": prepared(0, 1), "validation": prepared(2)})
    assert whole == fingerprint({"validation": prepared(2), "train": prepared(1, 0)})
    assert whole != fingerprint({"train": prepared(0, 2), "validation": prepared(1)})
    assert whole != fingerprint({"train": prepared(0, 1, 2), "validation": prepared()})
