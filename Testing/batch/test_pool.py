"""Several processes: work is shared, a death costs nothing, and nobody outlives the run."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from doubles import begun

from mskd.batch import Outcome, Place, segment_folder
from mskd.errors import Cancelled, InputError, PackageError, SettingsError

TWO = Place(("cpu",), jobs=2)


@pytest.fixture(autouse=True)
def no_process_stays() -> Any:
    yield
    assert multiprocessing.active_children() == []


def test_two_processes_share_the_cases_and_one_is_killed(folder: Any, make_task: Callable[..., Any]) -> None:
    # The first case of a process: it has none to write yet, so exactly one is begun twice.
    ledger = segment_folder(folder.cases(), make_task(meet=2, deadly_once=1), TWO)
    assert [outcome.case for outcome in ledger.outcomes()] == list("abcdef")
    assert not any(outcome.error or outcome.kept for outcome in ledger.outcomes())
    folder.check()
    assert Counter(begun(folder.log)) == {1: 2, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1}
    assert 2 <= len(list(folder.log.iterdir())) <= 3


def test_a_case_that_kills_every_process_takes_none_along(folder: Any, make_task: Callable[..., Any]) -> None:
    heard: list[Outcome] = []
    ledger = segment_folder(folder.cases(), make_task(deadly=3, faulty=5), TWO, heard.append)
    assert [outcome.exit_code for outcome in ledger.outcomes()] == [0, 0, 1, 0, 1, 0]
    assert sorted(outcome.case for outcome in heard) == list("abcdef")
    assert "Each process that had it died; the last was killed by signal 9" in ledger.outcomes()[2].error
    assert begun(folder.log).count(3) == 2
    folder.check("c", "e")


def test_an_engine_that_cannot_be_made(folder: Any, make_task: Callable[..., Any]) -> None:
    with pytest.raises(SettingsError, match="There is no device 'gpu'"):
        segment_folder(folder.cases(), make_task(), Place(("cpu", "gpu")))
    with pytest.raises(PackageError, match="not the model that the run began with"):
        segment_folder(folder.cases(), replace(make_task(), fingerprint="0" * 64), TWO)
    assert list(folder.results.iterdir()) == []


def test_cancelled_while_processes_segment(folder: Any, make_task: Callable[..., Any]) -> None:
    done: list[Outcome] = []
    with pytest.raises(Cancelled, match="of 6 cases"):
        segment_folder(folder.cases(), make_task(), TWO, done.append, cancelled=lambda: len(done) >= 2)
    before = folder.state()
    assert len(before) >= 2
    segment_folder(folder.cases(), make_task())
    folder.check()
    assert before.items() <= folder.state().items()


def test_a_full_disk_ends_all(folder: Any, make_task: Callable[..., Any], full_disk: Callable[[int], Any]) -> None:
    with full_disk(100), pytest.raises(InputError, match="The disk is full"):  # processes inherit the limit
        segment_folder(folder.cases(), make_task(), TWO)
    assert list(folder.results.iterdir()) == []


def test_places_that_make_no_sense() -> None:
    with pytest.raises(SettingsError, match="twice"):
        Place(("cpu", "cpu"))
    with pytest.raises(SettingsError, match="at least one"):
        Place(jobs=0)
    with pytest.raises(SettingsError, match="for the cluster to say"):
        Place(jobs=2, scheduler="tcp://localhost:1")


def test_processes_on_one_device_share_its_memory(make_task: Callable[..., Any]) -> None:
    options = make_task().options
    shares = Place(("cpu",), jobs=4).workers(options, 3)
    assert len(shares) == 3
    assert all(0 < share.memory < 1 << 50 for share in shares)
    assert [share.memory for share in Place(("cpu", "auto")).workers(options, 9)] == [None, None]
    assert [share.device for share in Place(("cpu", "auto"), jobs=2).workers(options, 3)] == ["cpu", "auto", "cpu"]
