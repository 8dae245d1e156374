"""The folder of a run: what may be written into it, what a run starts it with, what an overwriting run removes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mskd.errors import SettingsError
from mskd.files import require_writable_folder, write_text

CACHE = "cache"
"""Prepared cases: keyed by their content, so they outlive the run that an overwriting one replaces."""

# What a run writes, its settings last: a folder whose removal was interrupted is still a run's.
RUN_FILES = (
    "report.html",
    "model",
    "checkpoints",
    "tensorboard",
    "metrics.csv",
    "metrics.jsonl",
    "problems.jsonl",
    "plan.json",
    "recipe.toml",
    "split.json",
    "settings.json",
)


@dataclass(frozen=True)
class RunFolder:
    """Where a run lies, and whether it continues or replaces what is there."""

    path: Path
    resume: bool = False
    overwrite: bool = False

    def check(self, needed: Sequence[Path]) -> None:
        """Refuse to write into a folder that holds something, before any work is done.

        Args:
            needed: What the run reads, which it must not replace.

        Raises:
            SettingsError: the folder is not writable, holds something that is no run, or holds a run and neither resume
                nor overwrite was asked for; or overwriting it would remove what the run reads.
        """
        if self.resume and self.overwrite:
            raise SettingsError("--resume continues a run and --overwrite replaces it; give one of the two.")
        require_writable_folder(self.path, "--output")
        if not self.path.exists() or all(entry.name == CACHE for entry in self.path.iterdir()):
            return
        if not self.resume and not self.overwrite:
            raise SettingsError(
                f"--output {self.path}: this folder is not empty, and was left as it is; continue the run in it with "
                "--resume, replace it with --overwrite, or choose another."
            )
        if not is_run(self.path):
            raise SettingsError(
                f"--output {self.path}: this folder is not empty and not a run's folder, so nothing in it was touched; "
                "choose another."
            )
        inside = [path for path in needed if path.resolve().is_relative_to(self.path.resolve())]
        if self.overwrite and inside:
            raise SettingsError(
                f"--output {self.path}: --overwrite would remove {inside[0]}, which this run reads; choose another."
            )

    def start(self, settings: dict[str, Any]) -> None:
        """Make the folder with its settings; of an earlier run, remove what a run writes."""
        for name in RUN_FILES if self.overwrite else ():
            remove = shutil.rmtree if (self.path / name).is_dir() else Path.unlink
            if (self.path / name).exists():
                remove(self.path / name)
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "settings.json", json.dumps(settings, indent=1) + "\n")


def is_run(folder: Path) -> bool:
    """Whether a folder holds the settings of a run."""
    try:
        return "recipe_sha256" in json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
