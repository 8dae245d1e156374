"""Lets the tests of this folder write the data sets of ``Testing/data/layouts``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data" / "layouts"))
