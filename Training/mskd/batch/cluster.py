"""The cases of a folder on a Dask cluster whose machines see the same files under the same paths."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from mskd.batch.case import Case
from mskd.batch.outcome import Outcome
from mskd.batch.steps import Begun, Computed, begin, compute, finish
from mskd.batch.stream import Tell
from mskd.batch.task import EngineOptions, Task
from mskd.errors import Cancelled, InputError, MSKDError, SettingsError
from mskd.events import CancelCheck, never, silent
from mskd.inference import Engine

CONNECT_SECONDS = 20
KILLED = "KilledWorker"
"""Dask's name for a task whose workers died."""

LOOK_EVERY = 0.2
RETRIES = 2
"""How often a case is tried again whose task fails by itself. A worker's death counts for the scheduler's own limit,
``distributed.scheduler.allowed-failures``."""


class _Warm:
    """The engine of a worker, kept from case to case. One task computes at a time; others read and write meanwhile."""

    def __init__(self) -> None:
        self._key: tuple[EngineOptions, str] | None = None
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    def compute(self, begun: Begun, task: Task) -> Computed | Outcome:
        with self._lock:
            key = (task.options, task.fingerprint)
            if self._engine is None or self._key != key:
                self._engine = None  # its memory is free before the next is made
                self._engine, self._key = task.build_engine(), key
            return compute(self._engine, begun, task, silent, never)


_WARM = _Warm()


def run_cluster(cases: Sequence[Case], task: Task, address: str, tell: Tell, cancelled: CancelCheck) -> None:
    """Segment cases on the workers of a scheduler; each result is written by the worker that made it.

    Args:
        address: Of a Dask scheduler, as in ``tcp://node1:8786``.

    Raises:
        SettingsError: nobody answers there, or ``distributed`` is not installed. Cancelled: on request; what is done
            stays, and what has begun is done. InputError: the scheduler was lost, or what ``tell`` raised.
    """
    distributed = _distributed()
    suspects: list[Case] = []
    with _connect(distributed, address) as client:
        with closing(_submitted(distributed, client, cases, task, "", cancelled)) as ended:
            for case, future in ended:
                if _killed(future):
                    suspects.append(case)
                else:
                    tell(_outcome(case, future, address))
        # Dask blames all that waited on a worker that died; only alone a case tells whether it was the one.
        for suspect in suspects:
            with closing(_submitted(distributed, client, [suspect], task, "-alone", cancelled)) as ended:
                for case, future in ended:
                    tell(_outcome(case, future, address))


def _submitted(
    distributed: Any, client: Any, cases: Sequence[Case], task: Task, mark: str, cancelled: CancelCheck
) -> Generator[tuple[Case, Any], None, None]:
    """Cases as they end, with their futures; ``mark`` tells one try from another."""
    futures = {
        client.submit(segment_case, case, task, key=f"mskd-{task.run}-{case.name}{mark}", retries=RETRIES): case
        for case in cases
    }
    try:
        ended = distributed.as_completed(futures, loop=client.loop)
        for future in _each(ended, cancelled):
            if future.status in ("lost", "pending"):  # with the worker that had told of it: it is done again
                ended.add(future)
            else:
                yield futures.pop(future), future
    finally:
        client.cancel(list(futures))


def segment_case(case: Case, task: Task) -> Outcome:
    """On a worker: one case, or its outcome from before when a worker died between writing and telling."""
    begun = begin(case, task)
    if isinstance(begun, Outcome):
        return begun
    try:
        computed = _WARM.compute(begun, task)
    except MSKDError as fault:  # no engine
        return Outcome.failed(case.name, fault)
    return computed if isinstance(computed, Outcome) else finish(computed, task)


def _each(futures: Any, cancelled: CancelCheck) -> Iterator[Any]:
    """Futures as they end."""
    while not futures.is_empty():
        if cancelled():
            raise Cancelled("Cancelled while a cluster segmented.")
        yield from futures.next_batch(block=False)
        time.sleep(LOOK_EVERY)


def _outcome(case: Case, future: Any, address: str) -> Outcome:
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        return Outcome.failed(case.name, _reason(future.exception()))
    raise InputError(f"The scheduler at {address} was lost; what is done is kept. Start it, and give the same command.")


def _killed(future: Any) -> bool:
    return future.status == "error" and type(future.exception()).__name__ == KILLED


def _reason(fault: Exception) -> Exception:
    if type(fault).__name__ == KILLED:
        return MSKDError("The workers that segmented it died, one after the other; see the logs of the workers.")
    return fault


def _connect(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as fault:
        raise SettingsError(
            f"--scheduler {address}: no Dask scheduler answers there ({' '.join(str(fault).split())}); start one with "
            "'dask scheduler', and workers with 'dask worker'."
        ) from fault


def _distributed() -> Any:
    try:
        import distributed
    except ModuleNotFoundError as fault:
        raise SettingsError(
            f"--scheduler needs the Python package '{fault.name}'; install mskd[cluster] here and on the workers."
        ) from fault
    return distributed
