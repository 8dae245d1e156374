"""Progress in a log file: plain lines, whole, at once; the bar needs a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mskd.cli.console import Pace, progress_listener
from mskd.events import Event

ROOT = Path(__file__).resolve().parents[2]
LONG = "validation Dice 0.8123, loss 0.750 (segmentation 0.500, kd 0.100, ffd 0.100, rgd 0.050), learning rate 4.10e-03"


class Log(io.StringIO):
    """Counts what was written and not yet flushed."""

    unflushed = 0

    def write(self, text: str) -> int:
        self.unflushed += len(text)
        return super().write(text)

    def flush(self) -> None:
        self.unflushed = 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("mskd.cli.console.time.monotonic", lambda: now[0])
    return now


def test_a_log_holds_one_whole_plain_line_an_epoch(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setenv("FORCE_COLOR", "1")  # must not put bars into a log file
    with progress_listener("[1] ") as listen:
        for step in range(1, 41):
            clock[0] += 30.0
            listen(Event("train", step, 40, "loss [bold]0.7"))
            if step % 20 == 0:
                listen(Event("validate", step, 40, LONG))
                assert log.unflushed == 0
    assert log.getvalue().splitlines() == [
        f"[1] step 20 of 40 (50 %): {LONG}, 10 min 00 s left",
        "[1] train: 40 done",
        f"[1] step 40 of 40 (100 %): {LONG}",
    ]


def test_the_time_left_of_a_resumed_run_counts_its_own_steps_alone(clock: list[float]) -> None:
    pace = Pace(Event("train", 901, 1000))
    assert pace.left(Event("train", 901, 1000)) == ""
    clock[0] += 60.0
    assert pace.left(Event("train", 911, 1000)) == "8 min 54 s left"
    assert pace.left(Event("train", 1000, 1000)) == ""


def test_a_terminal_shows_the_bar_the_loss_and_the_time_left() -> None:
    code = (
        "import time\nfrom mskd.cli.console import progress_listener\nfrom mskd.events import Event\n"
        "with progress_listener() as listen:\n"
        "    for step in (1, 2, 3):\n"
        "        listen(Event('train', step, 400, 'loss 0.75'))\n        time.sleep(0.3)\n"
        "    listen(Event('validate', 3, 400, 'Dice 0.5'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Training"), "COLUMNS": "120", "TERM": "xterm"}
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, stdout=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed and nothing is left
            break
        shown += part
        if not part:
            break
    os.close(ours)
    text = shown.decode()
    assert "3/400" in text
    assert "loss 0.75" in text
    assert "left" in text
    assert "step 3 of 400 (1 %): Dice 0.5" in text
