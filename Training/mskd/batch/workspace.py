"""The hidden folder beside the results: who is at work, what is being written, what was made from what."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mskd.errors import InputError, SettingsError

HIDDEN = ".mskd"
ROOM = 1 << 20
"""Bytes that a disk which is not full takes."""


def records_folder(results: Path) -> Path:
    """Where the record of each result lies."""
    return results / HIDDEN


def writing_folder(results: Path) -> Path:
    """Where results are written before they take their place; what lies there after a kill is worth nothing."""
    return results / HIDDEN / "writing"


@contextmanager
def workspace(results: Path) -> Iterator[None]:
    """Make the folder of the results, for one run at a time, and clear it of what a killed run left half-written.

    Raises:
        SettingsError: another run is at work there. InputError: the folder cannot be made.
    """
    try:
        records_folder(results).mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"{results} cannot be made ({fault.strerror}); choose another place.") from fault
    try:
        with _locked(records_folder(results) / "lock", results):
            shutil.rmtree(writing_folder(results), ignore_errors=True)
            try:
                writing_folder(results).mkdir(exist_ok=True)
                yield
            finally:
                shutil.rmtree(writing_folder(results), ignore_errors=True)
    finally:
        with suppress(OSError):  # records are in it
            records_folder(results).rmdir()


def has_room(results: Path) -> bool:
    """Whether anything can still be written; found by trying, because ITK does not tell why it could not write."""
    try:
        with tempfile.TemporaryFile(dir=writing_folder(results)) as probe:
            probe.write(bytes(ROOM))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError:
        return False
    return True


@contextmanager
def _locked(path: Path, results: Path) -> Iterator[None]:
    """Hold a lock that the system takes back however the process ends."""
    with path.open("a+b") as stream:
        if (
            not _take(stream.fileno())
            or not path.exists()
            or not os.path.samestat(os.fstat(stream.fileno()), path.stat())
        ):
            raise SettingsError(
                f"Another run is writing into {results}; wait for it, or choose another folder for these results."
            )
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps a file that is open
                path.unlink()


def _take(descriptor: int) -> bool:
    """Whether the lock is ours now; yes also where the file system knows no locks."""
    try:
        import fcntl
    except ImportError:
        return _take_on_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _take_on_windows(descriptor: int) -> bool:
    import msvcrt

    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return False
    return True
