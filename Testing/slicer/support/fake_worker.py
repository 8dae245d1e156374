"""A worker in miniature: the protocol with a toy network, as a real process or inside the test's own.

The model's folder name (or the variable FAKE_WORKER) chooses what it does: ``toy`` answers, ``slow`` runs until it is
cancelled, ``stubborn`` ignores that too, ``crash`` dies with last words, ``refuse`` returns an error, ``newer`` speaks
another protocol.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REFUSAL = "The image holds 3 voxels that are not numbers; repair it and run again."


def toy_labels(image: np.ndarray, labels: int) -> np.ndarray:
    """A label map (z, y, x) with every label and background in it, that differs under any flip or shift."""
    z, y, x = np.indices(image.shape)
    return (((image > np.median(image)) + z + 2 * y + 3 * x) % (labels + 1)).astype(np.uint8)


def toy_uncertainty(labels: np.ndarray) -> np.ndarray:
    """Percent (z, y, x)."""
    return (100 - 30 * labels).astype(np.uint8)


class FakeWorker:
    """Answers one message at a time; ``send`` is called with each answer as a line.

    Args:
        cancelled: Tells whether the run with that id was cancelled.
        die: Ends the process.
    """

    def __init__(
        self, send: Callable[[str], None], cancelled: Callable[[int], bool], die: Callable[[int], Any] = os._exit
    ) -> None:
        self._send, self._cancelled, self._die = send, cancelled, die

    def hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "hello":
            self._answer(type="ready", protocol=3, versions={"mskd": "0"}, devices=["cpu"])
        elif message["type"] == "run":
            self._run(message)

    def _run(self, message: dict[str, Any]) -> None:
        kind = os.environ.get("FAKE_WORKER") or Path(message["model"]).name
        self._event(message, "read", 1, 1)
        if kind == "newer":
            self._answer(type="ready", protocol=4)
            kind = "slow"
        if kind == "crash":
            print("MemoryError: 3 GB", file=sys.stderr, flush=True)
            self._die(9)
        elif kind == "refuse":
            self._answer(type="error", id=message["id"], code="input", exit_code=3, message=REFUSAL)
        elif kind == "stubborn":
            subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"], check=False)
        elif kind == "slow":
            self._event(message, "windows", 5, 8)
            while not self._cancelled(message["id"]):
                time.sleep(0.01)
            self._answer(type="cancelled", id=message["id"])
        else:
            self._segment(message)

    def _segment(self, message: dict[str, Any]) -> None:
        manifest = json.loads((Path(message["model"]) / "model.json").read_text(encoding="utf-8"))
        image = np.load(message["input"], allow_pickle=False)
        for done in (1, 2, 3):
            self._event(message, "windows", done, 3)
        labels = toy_labels(image, len(manifest["labels"]))
        # With a region, a part of the voxels stands for its box.
        box = [[0 if message["region"] is None else side // 3, side] for side in labels.shape]
        np.save(message["output"], labels[tuple(slice(*ends) for ends in box)])
        if message.get("uncertainty") is not None:
            np.save(message["uncertainty"], toy_uncertainty(labels)[tuple(slice(*ends) for ends in box)])
        voxel = float(np.prod(message["geometry"]["spacing"])) / 1000
        volumes = {label["name"]: float((labels == label["value"]).sum()) * voxel for label in manifest["labels"]}
        report = {"device": "cpu", "volumes_ml": volumes, "warnings": ["The image is tilted."]}
        self._answer(
            type="result",
            id=message["id"],
            output=message["output"],
            uncertainty=message.get("uncertainty"),
            box=box,
            labels=manifest["labels"],
            report=report,
        )

    def _event(self, message: dict[str, Any], phase: str, done: int, total: int) -> None:
        self._answer(type="event", id=message["id"], phase=phase, done=done, total=total, text="")

    def _answer(self, **message: Any) -> None:
        self._send(json.dumps(message))


class InProcess:
    """The toy worker behind the client's ``Transport``, without a process."""

    def __init__(self) -> None:
        self.on_line: Callable[[str], None] = lambda line: None
        self.on_end: Callable[[int | None], None] = lambda code: None
        self.heard: list[dict[str, Any]] = []
        self._lines: list[str] = []
        self._ended: int | None = None
        self._worker = FakeWorker(self._lines.append, lambda run: True, self._die)

    def start(self, command: Any, environment: Any) -> None:
        """Nothing to start."""

    def send(self, line: str) -> None:
        self.heard.append(json.loads(line))
        self._worker.hear(self.heard[-1])

    def poll(self, timeout: float) -> None:
        while self._lines:
            self.on_line(self._lines.pop(0))
        if self._ended is not None:
            code, self._ended = self._ended, None
            self.on_end(code)

    def kill(self) -> None:
        self._lines.clear()

    def close_input(self) -> None:
        self._ended = 0

    def last_words(self) -> str:
        return "MemoryError: 3 GB"

    def _die(self, code: int) -> None:
        self._ended = code


def main() -> None:
    """Serve standard input until it ends or says quit."""
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
    cancelled: set[int] = set()

    def read() -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message["type"] == "cancel":
                cancelled.add(message["id"])
            else:
                messages.put(message if message["type"] != "quit" else None)
        messages.put(None)

    threading.Thread(target=read, daemon=True).start()
    worker = FakeWorker(lambda line: print(line, flush=True), cancelled.__contains__)
    print("a library that prints to standard output", flush=True)
    while (message := messages.get()) is not None:
        worker.hear(message)


if __name__ == "__main__":
    main()
