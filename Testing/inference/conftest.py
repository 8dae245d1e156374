"""Fixtures of the engine's tests; ``engine_doubles`` can be imported by them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from engine_doubles import Failing

import mskd.inference.engine
from mskd.inference.backends import BACKENDS


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    BACKENDS.names()
    monkeypatch.setitem(BACKENDS._entries, "failing", Failing)
    return Failing


@pytest.fixture
def empty_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds nothing yet, so that a limit on its memory can be small."""
    monkeypatch.setattr(mskd.inference.engine, "held_bytes", lambda device: -mskd.inference.engine.RESERVE)
