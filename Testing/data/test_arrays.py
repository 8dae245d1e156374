"""The store of arrays: entries are whole or not there, damage is found, two writers agree, a dead one does no harm."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from mskd.data import arrays
from mskd.data.arrays import ArrayStore, open_array, read_entry
from mskd.errors import InputError

KEY = "a" * 64
ARRAYS = {"image": np.arange(60, dtype=np.float32).reshape(3, 4, 5), "empty": np.empty((0, 3), np.int32)}


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    return ArrayStore(tmp_path / "cache")


def test_what_was_put_is_found_as_read_only_memory(store: ArrayStore) -> None:
    assert store.find(KEY) is None
    folder = store.put(KEY, ARRAYS, {"spacing": [1.0, 2.0]})
    assert store.find(KEY) == folder
    assert read_entry(folder).about == {"spacing": [1.0, 2.0]}
    for name, array in ARRAYS.items():
        found = open_array(folder, name)
        np.testing.assert_array_equal(found, array)
        assert not found.flags.writeable
    assert [path.name for path in store.folder.iterdir()] == [KEY]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def keep_size(path: Path) -> None:
    """Another content of the same size, written in the same instant: only the digest can tell."""
    flip(path)
    os.utime(path, ns=(1, 1))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: os.truncate(folder / "image.npy", 200),
    "emptied": lambda folder: (folder / "image.npy").write_bytes(b""),
    "a bit flipped": lambda folder: flip(folder / "image.npy"),
    "a bit flipped, the time moved back": lambda folder: keep_size(folder / "image.npy"),
    "an array gone": lambda folder: (folder / "image.npy").unlink(),
    "the record gone": lambda folder: (folder / "entry.json").unlink(),
    "the record cut": lambda folder: os.truncate(folder / "entry.json", 30),
    "the record says something else": lambda folder: (folder / "entry.json").write_text('{"arrays": {"../x": {}}}'),
    "all gone but the folder": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_entry_is_not_found_and_written_again(store: ArrayStore, what: str) -> None:
    folder = store.put(KEY, ARRAYS)
    DAMAGE[what](folder)
    assert store.find(KEY) is None
    assert store.put(KEY, ARRAYS) == folder
    assert store.find(KEY) == folder
    np.testing.assert_array_equal(open_array(folder, "image"), ARRAYS["image"])
    assert [path.name for path in store.folder.iterdir()] == [KEY]


def test_a_copied_store_is_as_good(store: ArrayStore, tmp_path: Path) -> None:
    store.put(KEY, ARRAYS)
    shutil.copytree(store.folder, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    assert ArrayStore(tmp_path / "copy").find(KEY) is not None


def test_an_array_of_objects_is_never_stored_nor_opened(store: ArrayStore) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        store.put(KEY, {"image": np.array([{}], dtype=object)})
    assert list(store.folder.iterdir()) == []
    folder = store.put(KEY, ARRAYS)
    np.save(folder / "image.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects"):
        open_array(folder, "image")


@pytest.mark.parametrize("size", [4096, 40_000])  # the last bytes wait in a buffer
def test_a_full_disk_leaves_no_half_entry(
    store: ArrayStore, size: int, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with (
        full_disk(size),
        pytest.raises(InputError, match=r"cannot be written .*; nothing half-written was left.*--cache"),
    ):
        store.put(KEY, {"image": np.zeros(10_000, np.float32)})
    assert list(store.folder.iterdir()) == []


def _put_often(folder: Path, value: float, times: int) -> None:
    store = ArrayStore(folder)
    for index in range(times):
        store.put(f"{index:064d}", {"image": np.full(1000, value, np.float32), "more": np.full(10, value)})


def test_two_processes_may_write_the_same_entries(store: ArrayStore) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_often, args=(store.folder, value, 60)) for value in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == [f"{index:064d}" for index in range(60)]
    for name in names:
        folder = store.find(name)
        assert folder is not None
        # Whoever won: the arrays of an entry come from one writer.
        assert open_array(folder, "image")[0] == open_array(folder, "more")[0]


def test_two_processes_may_mend_the_same_entries(store: ArrayStore) -> None:
    _put_often(store.folder, 3.0, 60)
    for entry in store.folder.iterdir():
        os.truncate(entry / "image.npy", 10)
    test_two_processes_may_write_the_same_entries(store)


def _put_slowly(folder: Path, ready: Path) -> None:
    def write(path: Path, array: np.ndarray) -> None:
        path.write_bytes(b"half")
        ready.touch()
        time.sleep(600)

    arrays._write = write  # type: ignore[assignment]
    ArrayStore(folder).put(KEY, ARRAYS)


def test_a_killed_writer_leaves_nothing_that_matters(store: ArrayStore, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    writer = multiprocessing.get_context("spawn").Process(target=_put_slowly, args=(store.folder, ready))
    writer.start()
    while not ready.exists():
        assert writer.is_alive()
        time.sleep(0.02)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(60)
    (left,) = store.folder.iterdir()
    assert store.find(KEY) is None
    store.put(KEY, ARRAYS)
    assert store.find(KEY) is not None
    store.sweep()
    assert left.exists()  # it might still be written
    yesterday = time.time() - 2 * arrays.ABANDONED
    os.utime(left, (yesterday, yesterday))
    store.sweep()
    assert [path.name for path in store.folder.iterdir()] == [KEY]
