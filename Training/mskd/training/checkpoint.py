"""Checkpoints: written whole or not at all, the last two kept, read without running any code from them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from mskd.errors import InputError, SettingsError

KEPT = 2


class Checkpoints:
    """The ``checkpoints/`` folder of a run.

    Args:
        digest: Hash of everything that must not change between a run and its resumption.
        writes: Whether this process writes them; of several ranks one does.
    """

    def __init__(self, folder: Path, digest: str, *, writes: bool = True) -> None:
        self.folder, self.digest, self._writes = folder, digest, writes

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after ``step`` steps, then drop all but the newest two."""
        self._write(self.folder / f"step-{step:08d}.pt", {"step": step, "digest": self.digest, **state})
        for old in self._newest_first()[KEPT:]:
            old.unlink()

    def save_best(self, state: dict[str, Any]) -> None:
        """Write the best weights so far."""
        self._write(self.folder / "best.pt", {"digest": self.digest, **state})

    def load_best(self) -> dict[str, Any]:
        return self._read(self.folder / "best.pt")

    def load_last(self) -> dict[str, Any] | None:
        """The newest readable state, or None when nothing was saved yet.

        Raises:
            SettingsError: the run was started with other settings or data.
        """
        for path in self._newest_first():
            try:
                state = self._read(path)
            except InputError:
                continue
            if state["digest"] != self.digest:
                raise SettingsError(
                    f"{path}: this run was started with other settings or other data; resume with those it saved in "
                    "settings.json, or start anew with another --output."
                )
            return state
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        if not self._writes:
            return
        partial = path.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as fault:
            # What torch's writer says when a write failed is about itself; the system's own word came before.
            reason = fault.__context__ if isinstance(fault.__context__, OSError) else fault
            raise InputError(
                f"{path}: the checkpoint could not be written ({reason}); the previous one is untouched. Free some "
                "disk space and continue with --resume."
            ) from fault
        finally:
            partial.unlink(missing_ok=True)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as fault:
            raise InputError(f"{path}: this checkpoint cannot be read ({fault}).") from fault
        return state
