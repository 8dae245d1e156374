"""Independent pieces of work, in this process or in several, told one by one as they end."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from mskd.errors import Cancelled, InputError
from mskd.events import CancelCheck

Result = TypeVar("Result")
Job = tuple[Callable[..., Result], tuple[Any, ...]]

LOOK_EVERY = 0.2
"""Seconds between two looks at whether the user wants to stop."""


def run_jobs(jobs: Sequence[Job[Result]], processes: int, cancelled: CancelCheck) -> Iterator[Result]:
    """Results in the order in which they come.

    Args:
        jobs: Functions of a module and their arguments, which all must pickle when ``processes`` is above 1.

    Raises:
        Cancelled: asked to stop; what has begun is finished first. InputError: a process was killed.
    """
    if min(processes, len(jobs)) <= 1:
        for function, arguments in jobs:
            stop_if(cancelled)
            yield function(*arguments)
        return
    # Forked processes would inherit torch's threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
        waiting = {pool.submit(function, *arguments) for function, arguments in jobs}
        try:
            while waiting:
                stop_if(cancelled)
                done, waiting = wait(waiting, LOOK_EVERY, FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool as fault:
            raise InputError(
                f"One of the {processes} processes that prepare cases was killed, out of memory perhaps; start again "
                "with fewer (--jobs 1). What was prepared is kept."
            ) from fault
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def stop_if(cancelled: CancelCheck) -> None:
    """Leave the work where it is when the user asks to."""
    if cancelled():
        raise Cancelled("Cancelled while the data were prepared; what was prepared is kept.")
