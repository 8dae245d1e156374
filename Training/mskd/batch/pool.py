"""Several processes, one engine each: cases go to whoever asks, and a process that dies costs nothing but time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from mskd.batch.case import Case
from mskd.batch.outcome import Outcome
from mskd.batch.stream import Tell, run_stream
from mskd.batch.task import EngineOptions, Task
from mskd.errors import Cancelled, MSKDError
from mskd.events import CancelCheck

TRIES = 2
LOOK_EVERY = 0.2
"""Seconds between two looks at whether the user wants to stop."""

ASK = "ask"
Message = str | Outcome | MSKDError


@dataclass
class _Worker:
    """A process, and the cases it was given and has not told the end of."""

    process: SpawnProcess
    pipe: Connection
    options: EngineOptions
    held: dict[str, Case] = field(default_factory=dict)
    begun: bool = False
    asks: bool = False
    on_trial: bool = False


class Pool:
    """Fills a folder with several processes.

    A process asks for a case when it has room to read one. When it dies, each case it held is tried once more, alone
    in a process, after all others: so a case that kills processes takes none along the second time.

    Args:
        task: What to fill.
        workers: The options of each process's engine.
        cases: What to segment.
        tell: Given each outcome.
    """

    def __init__(self, task: Task, workers: Sequence[EngineOptions], cases: Sequence[Case], tell: Tell) -> None:
        self._task, self._tell = task, tell
        self._fresh, self._suspects = deque(cases), deque[Case]()
        self._deaths: Counter[str] = Counter()
        self._threads = max(1, torch.get_num_threads() // len(workers))
        self._options = list(workers)
        self._workers: list[_Worker] = []

    def run(self, cancelled: CancelCheck) -> None:
        """Segment all cases.

        Raises:
            Cancelled: on request. MSKDError: no engine can be made, or what ``tell`` raised. In either case what is
                done stays, and the processes are gone.
        """
        try:
            self._workers = [self._start(options) for options in self._options]
            while self._fresh or self._suspects or any(worker.held for worker in self._workers):
                if cancelled():
                    raise Cancelled("Cancelled while processes segmented.")
                self._hand_out()
                pipes = {worker.pipe: worker for worker in self._workers}
                for pipe in wait(list(pipes), LOOK_EVERY):
                    self._hear(pipes[pipe])  # type: ignore[index]
        finally:
            # Results take their place in one step, so a process may be killed at any moment.
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.process.join()

    def _start(self, options: EngineOptions) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        task = replace(self._task, options=options)
        process = context.Process(target=_serve, args=(theirs, task, self._threads), daemon=True)
        with _signals_held():
            process.start()
        theirs.close()
        return _Worker(process, ours, options)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if not worker.asks or worker.on_trial:
                continue
            if self._fresh:
                self._give(worker, self._fresh.popleft())
            elif self._suspects and not worker.held:
                worker.on_trial = True
                self._give(worker, self._suspects.popleft())

    def _give(self, worker: _Worker, case: Case) -> None:
        worker.held[case.name], worker.asks = case, False
        with suppress(OSError):  # it died: that will be heard, and the case is among those it held
            worker.pipe.send(case)

    def _hear(self, worker: _Worker) -> None:
        try:
            message: Message = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(message, MSKDError):
            raise message
        if isinstance(message, Outcome):
            del worker.held[message.case]
            worker.on_trial = worker.on_trial and bool(worker.held)
            self._tell(message)
            return
        worker.begun = worker.asks = True

    def _bury(self, worker: _Worker) -> None:
        """Take back the cases of a process that died, and start another in its place."""
        worker.process.kill()  # dumb is as good as dead
        worker.process.join()
        self._workers.remove(worker)
        for case in worker.held.values():
            self._deaths[case.name] += 1
            if self._deaths[case.name] < TRIES:
                self._suspects.append(case)
            else:
                self._tell(
                    Outcome.failed(case.name, MSKDError(_ended(worker, "Each process that had it died; the last")))
                )
        if worker.begun:
            self._workers.append(self._start(worker.options))
        elif not self._workers:
            raise MSKDError(_ended(worker, "No process lived long enough to begin; the last"))


def _ended(worker: _Worker, who: str) -> str:
    code = worker.process.exitcode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"{who} {how}. Memory may be short: use fewer processes (--jobs)."


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process that starts now is deaf to Ctrl-C and SIGTERM, which reach all of a group: this one decides for all."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it comes with the first process, and would take the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, task: Task, threads: int) -> None:
    """A process of the pool: ask, segment, tell, until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows: it could not be born deaf
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    lock = threading.Lock()

    def send(message: Message) -> None:
        with lock:
            pipe.send(message)

    def given() -> Iterator[Case]:
        while True:
            send(ASK)
            yield pipe.recv()

    try:
        engine = task.build_engine()
    except MSKDError as fault:
        send(fault)
        return
    run_stream(engine, given(), task, send)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)
