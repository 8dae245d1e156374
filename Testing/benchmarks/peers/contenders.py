"""Who takes part: each contender is a command line that ends with a labels file and a JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "mskd"
PEERS = ("nnunet", "nnunet-student", "monai", "monai-nearest")
PHASES = {"windows": "network"}
"""The engine's name of a phase -> the one that all contenders share."""


@dataclass(frozen=True)
class Contender:
    """One row of the tables.

    Args:
        kind: ``mskd`` or one of ``PEERS``.
        student: Which package is inside; ``nnunet`` has a network of its own.
        backend: Of ``mskd``; ``auto`` leaves the choice to the engine.
        tuned: Whether glibc is told to keep freed memory. ``mskd`` does that by itself.
    """

    kind: str
    student: str = ""
    backend: str = ""
    tuned: bool = False

    @property
    def name(self) -> str:
        parts = (self.kind, self.student, self.backend, "tuned" if self.tuned else "")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Task:
    """One image and what is laid out for it: packages by student's name, and nnU-Net's model folder."""

    name: str
    image: Path
    packages: dict[str, Path]
    nnunet: Path


@dataclass(frozen=True)
class Files:
    """Where one run writes."""

    labels: Path
    result: Path
    log: Path


def contenders(students: list[str], backends: list[str], kinds: list[str]) -> list[Contender]:
    """Ours with every student and backend; peers with the first student, as they come and tuned."""
    ours = [Contender(OURS, student, backend) for student in students for backend in backends]
    chosen = [Contender(kind, "" if kind == "nnunet" else students[0]) for kind in PEERS if kind in kinds]
    tuned = [Contender(peer.kind, peer.student, tuned=True) for peer in chosen]
    return [*ours, *chosen, *tuned]


def command(contender: Contender, task: Task, files: Files, windows: int, memory: str) -> list[str]:
    """How to run it. ``windows``: how many nnU-Net's own network computes, 0 for all."""
    python, image, labels, result = sys.executable, str(task.image), str(files.labels), str(files.result)
    if contender.kind == OURS:
        package = str(task.packages[contender.student])
        line = [python, "-m", "mskd", "segment", image, "--model", package, "--device", "cpu", "-o", labels]
        line += ["--report", result]
        line += [] if contender.backend == "auto" else ["--backend", contender.backend]
        return [*line, *(["--memory", memory] if memory else [])]
    if contender.kind.startswith("nnunet"):
        line = [python, "-m", "peers.nnunet", "run", image, "--model", str(task.nnunet), "--output", labels]
        line += ["--result", result]
        if contender.kind == "nnunet":
            return [*line, "--windows", str(windows)]
        return [*line, "--student", str(task.packages[contender.student])]
    line = [python, "-m", "peers.monai_window", image, "--package", str(task.packages[contender.student])]
    line += ["--output", labels, "--result", result]
    return [*line, "--nearest"] if contender.kind == "monai-nearest" else line


def read_result(contender: Contender, path: Path) -> dict[str, Any]:
    """What a run told, ours and theirs in one form: ``seconds`` by phase, and details."""
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if contender.kind != OURS:
        return told
    milliseconds: dict[str, float] = told["milliseconds"]
    seconds = {PHASES.get(name, name): value / 1000 for name, value in milliseconds.items()}
    seconds["other"] = max(0.0, 2 * seconds["total"] - sum(seconds.values()))
    kept = ("backend", "precision", "plan", "memory_steps", "warnings")
    return {"seconds": seconds, "told": {name: told[name] for name in kept if name in told}}
