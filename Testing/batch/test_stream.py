"""One engine fed without pause: overlap, bounds, faults, and a clean end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from doubles import PATIENCE, begun

from mskd.batch import Case, Outcome, segment_folder
from mskd.batch.run import workspace
from mskd.batch.stream import run_stream
from mskd.errors import Cancelled, InputError
from mskd.inference import Region


class Overlap:
    """Stands between the stream and its engine, and holds each back until the other has gone on as far as it may."""

    def __init__(self, engine: Any, cases: list[Case]) -> None:
        self.engine, self.cases = engine, cases
        self.manifest = engine.manifest
        self.asked, self.ran, self.told = 0, 0, 0
        self.changed = threading.Condition()
        self.bounds: list[tuple[int, int]] = []
        self.warm_up = engine.warm_up

    def until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE)

    def note(self, name: str) -> None:
        with self.changed:
            setattr(self, name, getattr(self, name) + 1)
            self.changed.notify_all()

    def ask(self) -> Iterator[Case]:
        for case in self.cases:
            self.note("asked")
            yield case

    def run(self, *words: Any, **more: Any) -> Any:
        number = self.ran
        self.until(lambda: self.asked >= min(number + 2, len(self.cases)))
        self.bounds.append((self.asked - number, number - self.told))
        result = self.engine.run(*words, **more)
        self.note("ran")
        return result

    def tell(self, outcome: Outcome) -> None:
        number = self.told
        self.until(lambda: self.ran >= min(number + 2, len(self.cases)))
        self.note("told")


def test_reading_and_writing_go_on_while_the_engine_computes(folder: Any, make_task: Callable[..., Any]) -> None:
    task, cases = make_task(), folder.cases()
    overlap = Overlap(task.build_engine(), cases)
    with workspace(folder.results):
        run_stream(overlap, overlap.ask(), task, overlap.tell)
    folder.check()
    # Before and after the engine waits at most one case.
    assert overlap.bounds == [(2, 0), *[(2, 1)] * 4, (1, 1)]


@pytest.mark.parametrize("region", [None, Region((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))])
def test_a_region_loads_nothing_ahead(folder: Any, make_task: Callable[..., Any], region: Region | None) -> None:
    """It is small, and PyTorch's without asking."""
    task, warmed = replace(make_task(), region=region), []
    overlap = Overlap(task.build_engine(), [])
    overlap.warm_up = lambda: warmed.append(True)
    with workspace(folder.results):
        run_stream(overlap, overlap.ask(), task, overlap.tell)
    assert bool(warmed) == (region is None)


def test_faults_stay_with_their_case(folder: Any, make_task: Callable[..., Any]) -> None:
    (folder.images / "b.nii.gz").write_text("broken")
    (folder.results).mkdir()
    (folder.results / "d.nii.gz").write_text("somebody else's")
    heard: list[Outcome] = []
    ledger = segment_folder(folder.cases(), make_task(faulty=3), tell=heard.append)
    outcomes = {outcome.case: outcome for outcome in ledger.outcomes()}
    assert list(outcomes) == list("abcdef")
    assert sorted(outcome.case for outcome in heard) == list("abcdef")
    assert [outcome.exit_code for outcome in ledger.outcomes()] == [0, 3, 1, 2, 0, 0]
    assert "is not an image" in outcomes["b"].error
    assert "Unexpected TypeError: no such thing" in outcomes["c"].error
    assert "doubles.py" in outcomes["c"].entry["traceback"]
    assert "exists already" in outcomes["d"].error
    assert outcomes["b"].entry.keys() == {"case", "error", "code", "exit_code"}
    assert (folder.results / "d.nii.gz").read_text() == "somebody else's"
    (folder.results / "d.nii.gz").unlink()
    folder.check("b", "c", "d")


def test_a_result_that_cannot_be_written(folder: Any, make_task: Callable[..., Any]) -> None:
    folder.write("x" * 245, 7)
    ledger = segment_folder(folder.cases(), make_task())
    last = ledger.outcomes()[-1]
    assert last.exit_code == 3
    assert "name too long" in last.error
    folder.check("x" * 245)


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(
    folder: Any, make_task: Callable[..., Any], full_disk: Callable[[int], Any]
) -> None:
    segment_folder(folder.cases()[:2], make_task())
    before = folder.state()
    with full_disk(100), pytest.raises(InputError, match="The disk is full") as fault:
        segment_folder(folder.cases(), make_task())
    assert "2 of 6 cases" in str(fault.value)
    assert folder.state() == before
    folder.check(*"cdef")
    assert segment_folder(folder.cases(), make_task()).summary().startswith("6 of 6 cases")
    folder.check()


def test_cancelled_between_and_within_cases(folder: Any, make_task: Callable[..., Any]) -> None:
    done: list[Outcome] = []
    with pytest.raises(Cancelled, match=r"of 6 cases are in .* The same command does the rest") as fault:
        segment_folder(folder.cases(), make_task(), tell=done.append, cancelled=lambda: len(done) >= 2)
    assert 2 <= len(done) <= 4
    assert f"{len(done)} of 6" in str(fault.value)
    before = folder.state()
    assert sorted(before) == [f"{outcome.case}.nii.gz" for outcome in done]
    segment_folder(folder.cases(), make_task())
    folder.check()
    assert before.items() <= folder.state().items()
    assert len(set(begun(folder.log))) == 6
