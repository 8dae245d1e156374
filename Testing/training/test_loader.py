"""The loader: the same items in order for any number of processes, and no item lost when one is killed."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from mskd.errors import InputError
from mskd.events import Event
from mskd.training.loader import AHEAD, MOST_DEATHS, Loader


class Square:
    """Squares positions; the process that reads ``fatal`` kills itself, as often as ``lives`` says."""

    def __init__(self, folder: Path, fatal: int = -1, lives: int = 0) -> None:
        self.folder, self.fatal, self.lives = folder, fatal, lives

    def __call__(self, position: int) -> int:
        if position == self.fatal:
            deaths = len(list(self.folder.iterdir()))
            if deaths < self.lives:
                (self.folder / str(deaths)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return position**2


WANTED = [position**2 for position in range(3, 9)]


@pytest.mark.parametrize("workers", [0, 2])
def test_items_come_in_order_and_whole(tmp_path: Path, workers: int) -> None:
    loader = Loader(Square(tmp_path), 3, 9, workers=workers)
    assert list(loader) == WANTED
    assert loader.waited > 0
    assert list(Loader(Square(tmp_path), 9, 9, workers=workers)) == []


class Pinnable(int):
    """Tells whether it was asked for."""

    pinned = False

    def pin_memory(self) -> Pinnable:
        self.pinned = True
        return self


@pytest.mark.parametrize("pin", [False, True])
def test_items_are_pinned_before_they_are_asked_for(pin: bool) -> None:
    assert [item.pinned for item in Loader(Pinnable, 0, 4, pin=pin)] == [pin] * 4


def test_a_killed_process_is_replaced_and_nothing_is_lost_or_repeated(tmp_path: Path) -> None:
    told: list[Event] = []
    assert list(Loader(Square(tmp_path, fatal=6, lives=2), 3, 9, workers=1, on_event=told.append)) == WANTED
    assert [event.text for event in told] == ["A process that read the data was killed; started anew."] * 2


def test_processes_that_keep_dying_end_the_run_with_a_sentence(tmp_path: Path) -> None:
    items = iter(Loader(Square(tmp_path, fatal=3, lives=99), 3, 9, workers=1))
    with pytest.raises(InputError, match=rf"died {MOST_DEATHS + 1} times in a row.*continue with --resume"):
        next(items)


def test_a_fault_of_the_reading_itself_is_not_swallowed() -> None:
    def broken(position: int) -> int:
        raise InputError("case_3 is torn")

    with pytest.raises(InputError, match="case_3 is torn"):
        list(Loader(broken, 0, 3))


def test_the_thread_reads_ahead_but_not_without_bound() -> None:
    read: list[int] = []
    enough = threading.Event()

    def note(position: int) -> int:
        read.append(position)
        if len(read) > AHEAD:
            enough.set()
        return position

    items = iter(Loader(note, 0, 100))
    assert next(items) == 0
    assert enough.wait(10)
    assert len(read) <= AHEAD + 1
    items.close()
