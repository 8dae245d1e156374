"""One engine, fed without pause: the next case is read, and the last one written, while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from mskd.batch.case import Case
from mskd.batch.outcome import Outcome
from mskd.batch.steps import Begun, Computed, begin, compute, finish
from mskd.batch.task import Task
from mskd.errors import Cancelled
from mskd.events import CancelCheck, Event, never
from mskd.inference import Engine

Tell = Callable[[Outcome], None]
Progress = Callable[[str, Event], None]


def unheard(case: str, event: Event) -> None:
    """Ignores the progress of a case."""


def run_stream(
    engine: Engine,
    cases: Iterator[Case],
    task: Task,
    tell: Tell,
    progress: Progress = unheard,
    cancelled: CancelCheck = never,
) -> None:
    """Segment cases one after the other until there is none; memory holds at most one before and one after the engine.

    Args:
        cases: Asked, in a thread, for the next case as soon as there is room to read it.
        tell: Given each outcome, in a thread, once its result is in its place. What it raises ends the stream.
        progress: Told the case and the phases of the engine.

    Raises:
        Cancelled: on request; what was computed is written first.
    """
    if task.region is None:
        engine.warm_up()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = reader.submit(_read_next, cases, task)
        leaving: Future[None] | None = None
        while (step := coming.result()) is not None:
            _stop_if(cancelled)
            coming = reader.submit(_read_next, cases, task)
            over = _work(engine, step, task, progress, cancelled) if isinstance(step, Begun) else step
            if leaving is not None:
                leaving.result()
            leaving = writer.submit(_write, over, task, tell)
        if leaving is not None:
            leaving.result()


def _read_next(cases: Iterator[Case], task: Task) -> Begun | Outcome | None:
    case = next(cases, None)
    return None if case is None else begin(case, task)


def _work(engine: Engine, begun: Begun, task: Task, progress: Progress, cancelled: CancelCheck) -> Computed | Outcome:
    return compute(engine, begun, task, partial(progress, begun.loaded.case.name), cancelled)


def _write(over: Computed | Outcome, task: Task, tell: Tell) -> None:
    tell(finish(over, task) if isinstance(over, Computed) else over)


def _stop_if(cancelled: CancelCheck) -> None:
    if cancelled():
        raise Cancelled("Cancelled between two cases.")
