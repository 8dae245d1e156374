"""Ending a process with its descendants: Slicer's Python may start through a launcher that leaves its child alive."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path


def kill_tree(pid: int) -> None:
    """Kill process ``pid`` and everything it has started; those that are gone already are passed over."""
    if os.name == "nt":
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(pid)],
            capture_output=True,
            check=False,
            creationflags=subprocess.CREATE_NO_WINDOW,  # type: ignore[attr-defined]
        )
        return
    for member in [pid, *descendants(pid)]:
        try:
            os.kill(member, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def descendants(pid: int) -> list[int]:
    """Ids of the processes below ``pid``, parents before children."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found += below
        waiting += below
    return found


def _parents() -> dict[int, int]:
    """Process id -> id of its parent, for every process."""
    if Path("/proc/self/stat").exists():
        return _parents_from_proc()
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
    pairs = (line.split() for line in listing.splitlines())
    return {int(pid): int(parent) for pid, parent in pairs}


def _parents_from_proc() -> dict[int, int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # "pid (name) state parent ...": the name may hold spaces and brackets.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    return parents
