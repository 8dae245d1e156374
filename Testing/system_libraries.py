"""Says in one sentence which system libraries Qt needs for the tests and are missing; standard library only."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

# What is loaded -> the Debian package that holds it.
LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
}
FONTS = Path("/usr/share/fonts")
FONT = "DejaVuSans.ttf"
FONT_PACKAGE = "fonts-dejavu-core"


def missing_packages() -> list[str]:
    """Debian packages to install; empty where all is there, or where this is not Linux."""
    if not sys.platform.startswith("linux"):
        return []
    missing = [package for library, package in LIBRARIES.items() if not _loads(library)]
    return missing + ([] if any(FONTS.rglob(FONT)) else [FONT_PACKAGE])


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    packages = missing_packages()
    if "--list" in sys.argv:
        print(" ".join(packages))
    elif packages:
        sys.exit(
            "The widget tests need system libraries that are missing; install them (Debian, Ubuntu, as root): "
            f"apt-get update && apt-get install --no-install-recommends -y {' '.join(packages)}"
        )
