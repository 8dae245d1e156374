"""The client of the worker: one run at a time, one JSON object per line, and never a run without an answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import SegmentationError
from .transport import Transport

PROTOCOL = 3
GRACE_SECONDS = 5.0
START_SECONDS = 180.0
TERMINAL = ("result", "error", "cancelled")

Message = dict[str, Any]


class WorkerClient:
    """Keeps one worker warm.

    Args:
        transport: Makes a new, unstarted process.
        command: Gives the program and its arguments.
        environment: Gives the worker's environment.
        grace: Seconds between asking a worker to cancel and killing it.
        patience: Seconds for a new worker to say that it is ready (its first import of torch is slow).
    """

    def __init__(
        self,
        transport: Callable[[], Transport],
        command: Callable[[], Sequence[str]],
        environment: Callable[[], Mapping[str, str]],
        grace: float = GRACE_SECONDS,
        patience: float = START_SECONDS,
    ) -> None:
        self._new_transport, self._command, self._environment = transport, command, environment
        self._grace, self._patience = grace, patience
        self._transport: Transport | None = None
        self._listener: Callable[[Message], None] | None = None
        self._run_id = 0
        self._kill_at: float | None = None
        self._ready_by: float | None = None

    @property
    def busy(self) -> bool:
        """A run has not been answered yet."""
        return self._listener is not None

    @property
    def alive(self) -> bool:
        """A worker process is there."""
        return self._transport is not None

    def run(self, request: Mapping[str, Any], listener: Callable[[Message], None]) -> None:
        """Send a run; ``listener`` gets ``event`` messages, then exactly one ``result``, ``error`` or ``cancelled``.

        Raises:
            SegmentationError: the worker cannot be started, or is still busy.
        """
        if self.busy:
            raise SegmentationError("A segmentation is still running; wait for it or cancel it.")
        if self._transport is None:
            self._start()
        self._run_id += 1
        self._listener = listener
        self._send({"type": "run", "id": self._run_id, **request})

    def cancel(self) -> None:
        """Ask the worker to stop; ``poll`` kills it when it has not after the grace period."""
        if self.busy and self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace
            self._send({"type": "cancel", "id": self._run_id})

    def poll(self, timeout: float = 0.0) -> None:
        """Deliver what has arrived, and enforce a cancel and a start in time. Call it again and again while busy."""
        if self._transport is not None:
            self._transport.poll(timeout)
        if self._kill_at is not None and self._transport is not None and time.monotonic() >= self._kill_at:
            self._discard()
        if self._ready_by is not None and self._transport is not None and time.monotonic() >= self._ready_by:
            self._discard(
                f"The segmentation engine did not start within {self._patience:.0f} seconds; restart Slicer and try "
                "again."
            )

    def stop(self) -> None:
        """End the worker; a run in progress is answered with ``cancelled``."""
        if self._transport is None:
            return
        if self.busy:
            self._kill_at = time.monotonic()
            self._discard()
            return
        self._send({"type": "quit"})
        transport, self._transport = self._transport, None
        transport.close_input()
        ended: list[int | None] = []
        transport.on_end = ended.append
        until = time.monotonic() + self._grace
        while not ended and time.monotonic() < until:
            transport.poll(0.05)
        if not ended:
            transport.kill()
            transport.poll(1.0)

    def _start(self) -> None:
        command = list(self._command())
        transport = self._new_transport()
        transport.on_line, transport.on_end = self._on_line, self._on_end
        try:
            transport.start(command, self._environment())
        except OSError as failure:
            raise SegmentationError(f"'{command[0]}' cannot be started ({failure}); reinstall MSKD.") from failure
        self._transport = transport
        self._ready_by = time.monotonic() + self._patience
        self._send({"type": "hello"})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._transport is not None:
            self._transport.send(json.dumps(message))

    def _on_line(self, line: str) -> None:
        try:
            message = json.loads(line)
            kind = message["type"]
        except (ValueError, KeyError, TypeError):
            return  # A library that prints to standard output does no harm.
        if kind == "ready":
            self._on_ready(message.get("protocol"))
        elif self._listener is not None and message.get("id") == self._run_id:
            self._answer(message) if kind in TERMINAL else self._listener(message)

    def _on_ready(self, protocol: object) -> None:
        self._ready_by = None
        if protocol != PROTOCOL:
            self._discard(f"The segmentation engine speaks protocol {protocol}, this panel {PROTOCOL}; reinstall MSKD.")

    def _on_end(self, code: int | None) -> None:
        words = self._transport.last_words() if self._transport is not None else ""
        self._transport = None
        if self.busy:
            self._answer(self._farewell(_obituary(code, words)))

    def _discard(self, reason: str = "") -> None:
        """Kill the worker at once and answer the run."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.on_line, transport.on_end = _ignore, _ignore
            transport.kill()
            transport.poll(1.0)
        if self.busy:
            self._answer(self._farewell(reason))

    def _farewell(self, reason: str) -> Message:
        if self._kill_at is not None:
            return {"type": "cancelled", "id": self._run_id}
        return {"type": "error", "id": self._run_id, "code": "stopped", "message": reason}

    def _answer(self, message: Message) -> None:
        listener, self._listener, self._kill_at = self._listener, None, None
        if listener is not None:
            listener(message)


def _obituary(code: int | None, words: str) -> str:
    how = "crashed" if code is None or code < 0 else f"exit code {code}"
    said = f"; its last words: {words}" if words else ""
    return (
        f"The segmentation engine stopped ({how}{said}). Memory may have run out: draw a smaller region, close other "
        "programs, and try again."
    )


def _ignore(news: object) -> None:
    """For a worker that is no longer listened to."""
