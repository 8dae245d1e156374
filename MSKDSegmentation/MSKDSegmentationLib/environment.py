"""How the worker is started: program, module path and memory settings."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import SegmentationError

WORKER_MODULE = "mskd.inference.worker"

# By default glibc hands every large tensor back to the system and pays for its pages again: three times slower.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def package_root(module_folder: Path) -> Path:
    """The folder that holds the package ``mskd``: beside the module once installed, in ``../Training`` of a checkout.

    Raises:
        SegmentationError: it is in neither place.
    """
    places = [module_folder, module_folder.parent / "Training"]
    for place in places:
        if (place / "mskd" / "__init__.py").is_file():
            return place
    looked = " or ".join(f"'{place}'" for place in places)
    raise SegmentationError(f"The package mskd is not in {looked}; install the MSKD extension again.")


def worker_command() -> list[str]:
    """Slicer's own Python running the worker; outside Slicer this Python.

    Inside Slicer that is ``python-real``, as for Slicer's own command-line modules: it needs the environment that
    Slicer runs in. ``PythonSlicer`` is a launcher of it, which does not pass standard input on under every system.
    """
    suffix = ".exe" if os.name == "nt" else ""
    beside = Path(sys.executable).with_name(f"PythonSlicer{suffix}")
    real = shutil.which("python-real") if "PYTHONHOME" in os.environ else None
    python = real or shutil.which("PythonSlicer") or (str(beside) if beside.is_file() else sys.executable)
    return [python, "-m", WORKER_MODULE]


def worker_environment(module_folder: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """``base`` (this process's environment), the package first on its path, the allocator told to keep memory."""
    environment = dict(os.environ if base is None else base)
    paths = [str(package_root(module_folder)), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment["PYTHONIOENCODING"] = "utf-8"
    # Otherwise -m puts the working folder first, and a user's queue.py there would be taken for Python's own.
    environment["PYTHONSAFEPATH"] = "1"
    if "PYTHONHOME" in environment:
        environment["PYTHONNOUSERSITE"] = "1"  # As PythonSlicer: what pip put beside Slicer stays out of it.
    if sys.platform.startswith("linux"):
        environment.update(KEEP_MEMORY)
    return environment
