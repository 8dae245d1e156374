"""Memory that is the process's own before it is needed, so that a first run need not wait for it page by page."""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from mmap import PAGESIZE

import numpy as np
from numpy.typing import NDArray

from mskd.inference.environment import keeps_freed_memory

MADV_POPULATE_WRITE = 23
"""<sys/mman.h> of Linux, from 5.14 on."""

PORTION = 8 << 20
"""Bytes after which the thread asks whether it is to end."""


class PagesAhead:
    """Fetches memory from the system in a thread, and then leaves it to whoever allocates next.

    That is worth a tenth of the time from file to labels of a first run: a system hands out zeroed pages one at a time
    as they are touched, while the network waits; a processor that waits for a file can fetch them as well. It needs an
    allocator that keeps what was freed (see ``keep_freed_memory``) and Linux 5.14; elsewhere nothing is fetched.

    Args:
        size: Bytes at most; as many as there was time for until :meth:`stop`.
    """

    def __init__(self, size: int) -> None:
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None
        if not keeps_freed_memory():
            return
        with suppress(MemoryError, RuntimeError):  # no such memory, no more threads: a run can do without
            # The thread alone holds the block, which is free for others as soon as it ends.
            block = np.empty(size, dtype=np.uint8)
            thread = threading.Thread(target=_fetch, args=(block, self._enough), daemon=True)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """From now on the memory is there for others."""
        self._enough.set()
        if self._thread is not None:
            self._thread.join()


def _fetch(block: NDArray[np.uint8], enough: threading.Event) -> None:
    advise = ctypes.CDLL(None).madvise  # Python goes on meanwhile
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    begin = -(-block.ctypes.data // PAGESIZE) * PAGESIZE
    end = (block.ctypes.data + block.size) // PAGESIZE * PAGESIZE
    for start in range(begin, end, PORTION):
        if enough.is_set() or advise(start, min(PORTION, end - start), MADV_POPULATE_WRITE) != 0:
            return
