"""A child process that speaks lines: what the worker client needs of it, and the implementation without Qt."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Protocol

from .process_tree import kill_tree

LAST_WORDS = 40
DYING_TAKES = 10.0


class Transport(Protocol):
    """A process whose lines reach ``on_line`` and whose end reaches ``on_end``, on the thread that calls ``poll``.

    ``on_end`` gets the exit code (negative or None: killed or crashed) exactly once after a successful start.
    """

    on_line: Callable[[str], None]
    on_end: Callable[[int | None], None]

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start ``command``; OSError when it cannot be started."""

    def send(self, line: str) -> None:
        """Write one line to the process; silently nothing when it has ended (``on_end`` tells)."""

    def poll(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for news and deliver what is there; 0 does not wait."""

    def kill(self) -> None:
        """End the process and all its descendants now, and wait until they are gone."""

    def close_input(self) -> None:
        """Tell the process by end-of-file that it is no longer needed."""

    def last_words(self) -> str:
        """The last non-empty line the process wrote to its error output."""


class SubprocessTransport:
    """On the standard library alone: headless runs and tests."""

    def __init__(self) -> None:
        self.on_line: Callable[[str], None] = lambda line: None
        self.on_end: Callable[[int | None], None] = lambda code: None
        self._process: subprocess.Popen[str] | None = None
        self._news: queue.Queue[str | None] = queue.Queue()
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._readers: list[threading.Thread] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        hidden = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}  # type: ignore[attr-defined]
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            **hidden,
        )
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_words, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def send(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):  # It has ended: the reader delivers that.
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def poll(self, timeout: float) -> None:
        wait = timeout
        while self._process is not None:
            try:
                line = self._news.get(timeout=wait) if wait > 0 else self._news.get_nowait()
            except queue.Empty:
                return
            wait = 0.0
            if line is None:
                self._finish()
            else:
                self.on_line(line)

    def kill(self) -> None:
        if self._process is not None:
            kill_tree(self._process.pid)
            self._process.wait(timeout=DYING_TAKES)

    def close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # It has ended already.
                self._process.stdin.close()

    def last_words(self) -> str:
        return next((line for line in reversed(self._words) if line.strip()), "").strip()

    def _finish(self) -> None:
        process = self._process
        if process is None:
            return
        code = process.wait()
        for reader in self._readers:
            reader.join(timeout=1.0)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):  # Unsent input of a dead process.
                if pipe is not None:
                    pipe.close()
        self._process = None
        self.on_end(code)

    def _read_lines(self, pipe: IO[str]) -> None:
        for line in pipe:
            self._news.put(line.rstrip("\r\n"))
        self._news.put(None)

    def _read_words(self, pipe: IO[str]) -> None:
        self._words.extend(line.rstrip() for line in pipe)
