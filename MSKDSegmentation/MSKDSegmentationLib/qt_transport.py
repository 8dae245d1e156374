"""The worker as a QProcess: its lines arrive through Qt's event loop, so the application never waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import qt

from .process_tree import kill_tree
from .transport import DYING_TAKES, LAST_WORDS

STARTING_TAKES_MS = 30000


class QtTransport:
    """A ``Transport`` for the graphical application."""

    def __init__(self) -> None:
        self.on_line: Callable[[str], None] = lambda line: None
        self.on_end: Callable[[int | None], None] = lambda code: None
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._unfinished = b""
        self._process = qt.QProcess()
        self._process.connect("readyReadStandardOutput()", self._read_lines)
        self._process.connect("readyReadStandardError()", self._read_words)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._finish)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        variables = qt.QProcessEnvironment()
        for name, value in environment.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.start(command[0], list(command[1:]))
        if not self._process.waitForStarted(STARTING_TAKES_MS):
            raise OSError(self._process.errorString())

    def send(self, line: str) -> None:
        if self._process.state() == qt.QProcess.Running:
            self._process.write((line + "\n").encode())

    def poll(self, timeout: float) -> None:
        # The event loop delivers; only a caller that blocks it has to wait here.
        if timeout > 0 and self._process.state() != qt.QProcess.NotRunning:
            self._process.waitForReadyRead(int(timeout * 1000))

    def kill(self) -> None:
        if self._process.state() != qt.QProcess.NotRunning:
            kill_tree(int(self._process.processId()))
            self._process.waitForFinished(int(DYING_TAKES * 1000))

    def close_input(self) -> None:
        self._process.closeWriteChannel()

    def last_words(self) -> str:
        return next((line for line in reversed(self._words) if line.strip()), "").strip()

    def _read_lines(self) -> None:
        *lines, self._unfinished = (self._unfinished + bytes(self._process.readAllStandardOutput().data())).split(b"\n")
        for line in lines:
            self.on_line(line.decode("utf-8", errors="replace").rstrip("\r"))

    def _read_words(self) -> None:
        text = bytes(self._process.readAllStandardError().data()).decode("utf-8", errors="replace")
        self._words.extend(text.splitlines())

    def _finish(self, code: int, status: int) -> None:
        self._read_lines()
        self._read_words()
        # A crash has no exit code of its own, and Qt then gives the signal or nonsense.
        self.on_end(code if status == qt.QProcess.NormalExit else None)
