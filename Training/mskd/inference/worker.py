"""``python -m mskd.inference.worker``: the engine as a process, one JSON line a message on stdin and stdout.

Requests: hello, describe, run, cancel, quit (see :mod:`mskd.inference.messages`); each gets its answer, in order. A run
sends ``event`` lines, then exactly one ``result``, ``error`` or ``cancelled``. Lines that are no request get an error
with id null. When stdin ends, what was asked for is finished; when nobody reads the answers any more, or the parent
process is gone, the worker removes the private folder of its last run and ends at once.
"""

from __future__ import annotations

import os
import queue
import select
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from mskd.errors import Cancelled, MSKDError
from mskd.events import Event
from mskd.inference.environment import available_devices, give_back_memory, tune_process, versions
from mskd.inference.jobs import Engines, private_folder, run_job
from mskd.inference.memory import is_out_of_memory
from mskd.inference.messages import (
    LONGEST_LINE,
    PROTOCOL,
    Cancel,
    Describe,
    Hello,
    Quit,
    Request,
    Run,
    encode,
    parse_request,
    request_id,
)
from mskd.package import open_package

WATCH_SECONDS = 0.5
IDLE_SECONDS = 10.0
"""After which the memory that a run left behind is given back: soon for other programs, late for the next run."""


class Worker:
    """Serves requests from ``source`` one after the other, answers to ``sink``.

    A thread reads, so that a cancel is heard while a run computes.
    """

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._write_lock = threading.Lock()
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._pending: set[int] = set()
        self._cancelled: set[int] = set()
        self._stopping = threading.Event()
        self._engines = Engines()
        self._folder: Path | None = None

    def serve(self) -> None:
        """Answer until quit, or until stdin ends and everything asked for is done."""
        threading.Thread(target=self._read, daemon=True).start()
        while (request := self._next()) is not None:
            self._answer(request)

    def _next(self) -> Request | None:
        try:
            return self._queue.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            give_back_memory()
        return self._queue.get()

    def _read(self) -> None:
        while line := self._source.readline(LONGEST_LINE):
            if not line.strip():
                continue
            try:
                request = parse_request(line)
            except MSKDError as fault:
                self._send_error(request_id(line), fault)
                continue
            if isinstance(request, Quit):
                self._stopping.set()
                break
            if isinstance(request, Cancel):
                self._cancelled |= self._pending & {request.id}
                continue
            if isinstance(request, Run):
                self._pending.add(request.id)
            self._queue.put(request)
        self._queue.put(None)

    def _answer(self, request: Request) -> None:
        if isinstance(request, Hello):
            self._send(type="ready", protocol=PROTOCOL, versions=versions(), devices=available_devices())
            return
        if not isinstance(request, (Describe, Run)) or self._stopping.is_set():
            return
        try:
            if isinstance(request, Describe):
                manifest = open_package(request.model).manifest.model_dump(mode="json")
                self._send(type="described", id=request.id, manifest=manifest)
            else:
                self._send(type="result", id=request.id, **self._run(request))
        except Cancelled:
            self._send(type="cancelled", id=request.id)
        except MSKDError as fault:
            self._send_error(request.id, fault)
        except BrokenPipeError:
            raise
        except Exception as fault:
            self._unexpected(request.id, fault)
        finally:
            self._pending.discard(request.id)
            self._cancelled.discard(request.id)

    def _run(self, request: Run) -> dict[str, Any]:
        def listen(event: Event) -> None:
            self._send(type="event", id=request.id, **event.as_dict())

        def cancelled() -> bool:
            return self._stopping.is_set() or request.id in self._cancelled

        self._folder = private_folder(request)
        return run_job(request, self._engines, listen, cancelled)

    def forsake(self) -> None:
        """Nobody is there any more: remove what the client would have removed, and end the process."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)

    def _unexpected(self, identity: int, fault: Exception) -> None:
        """Answer a fault of the program itself; its traceback goes to stderr, where the client keeps a log."""
        traceback.print_exception(fault)
        memory = is_out_of_memory(fault)
        self._send(
            type="error",
            id=identity,
            code="out_of_memory" if memory else "error",
            exit_code=5 if memory else 1,
            message=f"The segmentation failed unexpectedly ({type(fault).__name__}: {' '.join(str(fault).split())}).",
        )

    def _send_error(self, identity: int | None, fault: MSKDError) -> None:
        self._send(type="error", id=identity, code=fault.code, exit_code=fault.exit_code, message=str(fault))

    def _send(self, **message: Any) -> None:
        with self._write_lock:
            self._sink.write(encode(message))
            self._sink.flush()


def abandoned(output: int, parent: int) -> bool:
    """Whether nobody reads ``output`` (a pipe's file descriptor) any more, or process ``parent`` is gone."""
    if os.getppid() != parent:
        return True
    if not hasattr(select, "poll"):  # Windows: a failing write tells
        return False
    poller = select.poll()
    poller.register(output, 0)
    return any(state & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, state in poller.poll(0))


def _watch(output: int, parent: int, worker: Worker) -> None:
    while not abandoned(output, parent):
        time.sleep(WATCH_SECONDS)
    worker.forsake()


def main() -> int:
    """Serve on stdin and stdout; everything else that prints goes to stderr."""
    parent = os.getppid()
    tune_process()
    output = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    with os.fdopen(output, "wb") as sink:
        worker = Worker(sys.stdin.buffer, sink)
        threading.Thread(target=_watch, args=(output, parent, worker), daemon=True).start()
        try:
            worker.serve()
        except BrokenPipeError:
            worker.forsake()
    return 0


if __name__ == "__main__":
    # The reading thread may sit in a blocking read: end without waiting for it.
    code = main()
    sys.stderr.flush()
    os._exit(code)
