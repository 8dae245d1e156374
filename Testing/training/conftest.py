"""Lets the tests of this folder import the small data sets that lie beside them, and those of every layout."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "data" / "layouts")]
