"""``mskd info``, ``verify`` and ``models``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mskd.cli import main


def run(*words: object) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return int(ended.value.code or 0)


def test_info_shows_the_card(threshold_package: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    package = threshold_package()
    assert run("info", package.path) == 0
    shown = capsys.readouterr().out
    for part in ("Counts thresholds", "above 1", "Tests.", package.fingerprint):
        assert part in shown


def test_info_as_json(threshold_package: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    package = threshold_package()
    assert run("info", package.path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((package.path / "model.json").read_text())


def test_verify(threshold_package: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    package = threshold_package()
    assert run("verify", package.path) == 0
    assert "is sound" in capsys.readouterr().out
    card = package.path / "card.md"
    card.write_text(card.read_text() + "!")
    assert run("verify", package.path) == 4
    assert "SHA-256" in capsys.readouterr().err


def test_verify_notices_a_network_that_computes_otherwise(
    threshold_package: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mskd.package import probe

    monkeypatch.setattr(probe, "TOLERANCE", -1.0)
    assert run("verify", threshold_package().path) == 4
    assert "probe" in capsys.readouterr().err


def test_models(
    threshold_package: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = threshold_package()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.json").write_text("{}")
    monkeypatch.setenv("MSKD_MODELS", f"{package.path.parent}:{tmp_path}")
    monkeypatch.setenv("COLUMNS", "200")
    assert run("models") == 0
    shown = capsys.readouterr().out
    assert "Counts thresholds" in shown
    assert "refused" in shown
