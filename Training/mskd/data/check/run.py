"""Measures every case once, in this process or several, then holds the cases against one another."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace

from mskd.data.check.classes import class_findings
from mskd.data.check.duplicates import duplicate_findings
from mskd.data.check.finding import Finding, gravest_first
from mskd.data.check.grids import grid_findings
from mskd.data.check.intensities import empty_images, intensity_findings
from mskd.data.check.measure import Measured, measure_case
from mskd.data.check.placement import masked_findings, placement_findings
from mskd.data.check.report import Report
from mskd.data.check.sides import side_findings
from mskd.data.dataset import Dataset
from mskd.errors import Cancelled, OutOfMemory, SettingsError
from mskd.events import CancelCheck, Event, Listener, never, silent

# Seconds between two looks at the cancel check while other processes work.
POLL = 0.2
CANCELLED = "The check was cancelled; nothing was written."


def check_dataset(
    dataset: Dataset,
    *,
    jobs: int = 1,
    tiles: bool = False,
    on_event: Listener = silent,
    cancelled: CancelCheck = never,
) -> Report:
    """Read every case of a data set, one at a time in each job, and report what is wrong or odd.

    Args:
        jobs: Number of processes.
        tiles: Keep a small picture of each case for the contact sheet.

    Raises:
        SettingsError: fewer than one job. Cancelled: asked to stop. OutOfMemory: a process was killed.
    """
    if jobs < 1:
        raise SettingsError(f"--jobs {jobs}: at least 1 process has to do the work.")
    cases = []
    results = _measure_here(dataset, tiles) if jobs == 1 else _measure_in_processes(dataset, tiles, jobs, cancelled)
    for measured in results:
        cases.append(measured)
        on_event(Event("check", len(cases), len(dataset.cases)))
        if cancelled():
            raise Cancelled(CANCELLED)
    return Report(dataset, tuple(cases), judge(dataset, cases))


def judge(dataset: Dataset, cases: Sequence[Measured]) -> tuple[Finding, ...]:
    """Everything that the measures show, the gravest first.

    A fault that explains another is told alone: volumes in mL are not compared where the spacing is in doubt, nor what
    lies under the labels where the image is empty or the sides are swapped.
    """
    files = [fault for case in cases for fault in case.faults]
    grids = grid_findings(cases)
    odd_grids = _named(grids, "warning")
    sides = side_findings(dataset, cases)
    swapped = _named(sides, "error")
    intensities = intensity_findings(dataset, cases)
    seen = [case for case in cases if case.id not in empty_images(intensities)]
    placed = [case for case in seen if case.id not in odd_grids | swapped]
    return gravest_first(
        [
            *files,
            *duplicate_findings(cases),
            *grids,
            *intensities,
            *class_findings(dataset, cases, odd_grids),
            *masked_findings(seen),
            *sides,
            *placement_findings(dataset, placed),
        ]
    )


def _named(findings: Sequence[Finding], severity: str) -> set[str]:
    return {case for finding in findings if finding.severity == severity for case in finding.cases}


def _measure_here(dataset: Dataset, tiles: bool) -> Iterator[Measured]:
    for case in dataset.cases:
        yield measure_case(dataset, case, tile=tiles)


def _measure_in_processes(dataset: Dataset, tiles: bool, jobs: int, cancelled: CancelCheck) -> Iterator[Measured]:
    """In the data set's order, with no more cases under way than there are processes to take them."""
    described = replace(dataset, cases=())  # what travels with every case
    # Fresh processes: a fork would inherit the locked state of the image library's threads.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    waiting: deque[Future[Measured]] = deque()
    try:
        for case in dataset.cases:
            with _interrupts_for_this_process_alone():
                waiting.append(pool.submit(measure_case, described, case, tile=tiles))
            if len(waiting) > 2 * jobs:
                yield _result(waiting.popleft(), cancelled)
        while waiting:
            yield _result(waiting.popleft(), cancelled)
    except BrokenProcessPool as fault:
        if cancelled():
            raise Cancelled(CANCELLED) from None
        raise OutOfMemory(
            f"A process of the check was killed, as happens when memory runs out; use fewer --jobs than {jobs}."
        ) from fault
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[Measured], cancelled: CancelCheck) -> Measured:
    while not wait([future], POLL).done:
        if cancelled():
            raise Cancelled(CANCELLED)
    return future.result()


@contextmanager
def _interrupts_for_this_process_alone() -> Iterator[None]:
    """Processes that are started within never see Ctrl-C, not even while they start; this one sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
