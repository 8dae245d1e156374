"""Named arrays on disk under the hash of what they were computed from: written once, whole, by whoever comes first."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from mskd.errors import InputError
from mskd.spec import Strict, validate
from mskd.spec.model import Digest

RECORD = "entry.json"
ATTEMPTS = 5
ABANDONED = 24 * 3600.0
"""Seconds after which a half-written entry has no living writer any more."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class StoredArray(Strict):
    """What a file must still be: its size, and its digest wherever somebody has touched it since."""

    size: int
    modified_ns: int
    sha256: Digest


class Entry(Strict):
    """The record of an entry: its arrays, and what JSON can say about them."""

    arrays: dict[Name, StoredArray]
    about: dict[str, Any] = {}


class ArrayStore:
    """A folder of entries, each a folder of ``.npy`` files and ``entry.json``, named by a key.

    An entry appears by one rename, so that any number of processes may fill the same store: of two that write the same
    entry the slower one throws its copy away. There is no lock that a killed process could leave behind.

    Args:
        folder: Made when the first entry is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Path | None:
        """The folder of a sound entry; None when there is none, or it is damaged and must be written again.

        Sizes are compared always, contents only where a file's time differs from the recorded one: a store is larger
        than memory, and is opened at every start.
        """
        folder = self.folder / key
        try:
            arrays = read_entry(folder).arrays
            sound = all(_is_sound(folder / f"{name}.npy", array) for name, array in arrays.items())
        except (OSError, InputError):
            return None
        return folder if sound else None

    def put(self, key: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any] | None = None) -> Path:
        """Write an entry, or take the sound one that somebody else wrote in the meantime; returns its folder.

        Raises:
            InputError: the disk is full or not writable; nothing half-written is left.
        """
        target = self.folder / key
        temporary = self.folder / f".{key[:16]}.{secrets.token_hex(6)}"
        try:
            temporary.mkdir(parents=True)
            stored = {name: _write(temporary / f"{name}.npy", array) for name, array in arrays.items()}
            entry = Entry(arrays=stored, about=dict(about or {}))
            (temporary / RECORD).write_text(json.dumps(entry.model_dump()), encoding="utf-8")
            self._publish(temporary, key)
        except OSError as fault:
            raise InputError(
                f"{target} cannot be written ({fault.strerror or fault}); nothing half-written was left. Make room, or "
                "choose another place for prepared cases with --cache."
            ) from fault
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def sweep(self) -> None:
        """Remove what killed processes left half-written a day ago or longer."""
        for path in self.folder.glob(".*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    shutil.rmtree(path)

    def _publish(self, temporary: Path, key: str) -> None:
        target = self.folder / key
        for attempt in range(ATTEMPTS):
            try:
                temporary.rename(target)
                return
            except OSError:
                if self.find(key) is not None:
                    return
                if attempt + 1 == ATTEMPTS:
                    raise
            # What lies there is damaged: out of the way with it, unless another process has just done so.
            aside = temporary.with_name(f"{temporary.name}.{attempt}")
            with suppress(FileNotFoundError):
                target.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)


def read_entry(folder: Path) -> Entry:
    """The record of an entry.

    Raises:
        OSError: not there. InputError: not a record.
    """
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except ValueError as fault:
        raise InputError(f"{folder / RECORD}: not readable ({fault}).") from fault
    return validate(Entry, data, source=str(folder / RECORD), error=InputError)


def open_array(folder: Path, name: str) -> np.ndarray:
    """A read-only memory map of one array of an entry."""
    array: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return array


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write(path: Path, array: np.ndarray) -> StoredArray:
    with path.open("wb") as file:
        # To a real file numpy writes from C, which drops the last voxels on a full disk and says nothing.
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    status = path.stat()
    return StoredArray(size=status.st_size, modified_ns=status.st_mtime_ns, sha256=file_digest(path))


def _is_sound(path: Path, array: StoredArray) -> bool:
    status = path.stat()
    if status.st_size != array.size:
        return False
    return status.st_mtime_ns == array.modified_ns or file_digest(path) == array.sha256
