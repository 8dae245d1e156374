"""The models that come with the program, by name."""

from __future__ import annotations

import os
from pathlib import Path

from mskd.package.manifest import MANIFEST

VARIABLE = "MSKD_MODELS"


def bundled_models() -> dict[str, Path]:
    """Package folders by name, sorted.

    They are looked for in the folders named by the environment variable ``MSKD_MODELS``, in the Slicer module of this
    checkout or of the installed extension, and inside the installed package; the first of a name wins.
    """
    found: dict[str, Path] = {}
    for folder in _places():
        if folder.is_dir():
            for package in sorted(folder.iterdir()):
                if (package / MANIFEST).is_file():
                    found.setdefault(package.name, package)
    return dict(sorted(found.items()))


def _places() -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    named = [Path(entry) for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    return [
        *named,
        package.parents[1] / "MSKDSegmentation" / "Resources" / "Models",
        package.parent / "Resources" / "Models",
        package / "models",
    ]
