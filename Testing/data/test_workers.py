"""Work in several processes: every result comes, faults come through, a killed process is named."""

from __future__ import annotations

import os
import signal

import pytest

from mskd.data.workers import run_jobs
from mskd.errors import Cancelled, InputError
from mskd.events import never


def square(number: int) -> int:
    if number == 13:
        raise InputError("thirteen")
    return number**2


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_every_result_comes_once(processes: int) -> None:
    found = run_jobs([(square, (number,)) for number in range(9)], processes, never)
    assert sorted(found) == [number**2 for number in range(9)]
    with pytest.raises(InputError, match="thirteen"):
        list(run_jobs([(square, (number,)) for number in (12, 13, 14)], processes, never))
    with pytest.raises(Cancelled):
        list(run_jobs([(square, (1,)), (square, (2,))], processes, lambda: True))


def test_a_killed_process_is_named() -> None:
    with pytest.raises(InputError, match=r"One of the 2 processes .* was killed.*--jobs 1"):
        list(run_jobs([(die, (number,)) for number in range(3)], 2, never))
