"""The folders that voxels travel through: nobody else may look into them, and they go when their process is gone."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

# The worker knows the name too, and removes the folder of its run when its client dies.
NAME = re.compile(r"mskd-(\d+)-\w+")


def new_private_folder() -> Path:
    """An empty folder for this user alone (mode 0700), named after this process."""
    return Path(tempfile.mkdtemp(prefix=f"mskd-{os.getpid()}-"))


def sweep_stale_folders() -> None:
    """Remove this user's folders whose process was killed before it could."""
    for folder in Path(tempfile.gettempdir()).glob("mskd-*"):
        named = NAME.fullmatch(folder.name)
        if named and _is_ours(folder) and not is_running(int(named[1])):
            shutil.rmtree(folder, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether there is a process with this id."""
    if os.name == "nt":
        return _is_running_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # Somebody else's, or no id at all: better kept.
    return True


def _is_running_on_windows(pid: int) -> bool:
    import ctypes

    # os.kill would end it. 0x1000: PROCESS_QUERY_LIMITED_INFORMATION
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    handle = kernel.OpenProcess(0x1000, False, pid)
    if handle:
        kernel.CloseHandle(handle)
    return bool(handle)


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return folder.is_dir() and not folder.is_symlink() and (os.name == "nt" or found.st_uid == os.getuid())
