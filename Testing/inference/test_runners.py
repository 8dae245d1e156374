"""What runs the network: measured, loaded ahead, and left for PyTorch when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engine_doubles import THRESHOLDS, Failing, levels

from mskd.errors import SettingsError
from mskd.image import Geometry
from mskd.inference import Engine
from mskd.inference.backends import make_backend
from mskd.inference.select import Choice


def test_a_runtime_that_fails_is_left_for_pytorch(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "fault", RuntimeError("the runtime\nis broken"))
    monkeypatch.setattr("mskd.inference.runners.SMALL", 0)
    monkeypatch.setattr(
        "mskd.inference.runners.choose", lambda *words, **more: Choice("failing", "float32", {"failing float32": 1.0})
    )
    image, truth = levels(Geometry((9, 20, 21)))
    engine = Engine(threshold_package(THRESHOLDS), "cpu")
    result = engine.run(image)
    np.testing.assert_array_equal(result.labels.array, truth)
    assert result.report["memory_steps"] == [
        "The backend 'failing' failed (the runtime is broken); going on with 'torch_eager'."
    ]
    assert result.report["backend"] == "torch_eager"
    assert engine.run(image).report["memory_steps"] == []


def test_what_was_fastest_last_is_loaded_while_the_image_is_read(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread, once; another choice afterwards is loaded as ever."""
    last = Choice("failing", "float32", {"failing float32": 1.0})
    made: list[tuple[str, bool]] = []

    def record(name: str, *words: Any, **more: Any) -> Any:
        made.append((name, threading.current_thread() is threading.main_thread()))
        return make_backend(name, *words, **more)

    monkeypatch.setattr(failing, "largest", 1 << 20)
    monkeypatch.setattr("mskd.inference.runners.SMALL", 0)
    monkeypatch.setattr("mskd.inference.runners.last_choice", lambda *words: last)
    monkeypatch.setattr("mskd.inference.runners.choose", lambda *words, **more: last)
    monkeypatch.setattr("mskd.inference.runners.make_backend", record)
    image, truth = levels(Geometry((9, 20, 21)))
    engine = Engine(threshold_package(THRESHOLDS), "cpu")
    engine.warm_up()
    for _ in range(2):
        np.testing.assert_array_equal(engine.run(image).labels.array, truth)
    assert made == [("failing", False)]
    other = Choice("torch_eager", "float32", {})
    monkeypatch.setattr("mskd.inference.runners.choose", lambda *words, **more: other)
    engine.run(levels(Geometry((19, 20, 21)))[0])
    assert made == [("failing", False), ("torch_eager", True)]


def test_nothing_is_measured_while_another_runtime_is_loaded(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def slow(name: str, *words: Any, **more: Any) -> Any:
        if name == "failing":
            loading.wait(0.5)
            loaded.set()
        return make_backend(name, *words, **more)

    def choose(*words: Any, **more: Any) -> Choice:
        assert loaded.is_set()
        return Choice("torch_eager", "float32", {})

    last = Choice("failing", "float32", {})
    monkeypatch.setattr("mskd.inference.runners.SMALL", 0)
    monkeypatch.setattr("mskd.inference.runners.last_choice", lambda *words: last)
    monkeypatch.setattr("mskd.inference.runners.make_backend", slow)
    monkeypatch.setattr("mskd.inference.runners.choose", choose)
    engine = Engine(threshold_package(THRESHOLDS), "cpu")
    engine.warm_up()
    assert engine.run(levels(Geometry((9, 20, 21)))[0]).report["backend"] == "torch_eager"


def test_a_runtime_that_cannot_be_loaded_ahead_says_so_when_it_is_needed(
    threshold_package: Callable[..., Any], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Choice("absent", "float32", {})
    monkeypatch.setattr("mskd.inference.runners.SMALL", 0)
    monkeypatch.setattr("mskd.inference.runners.last_choice", lambda *words: last)
    monkeypatch.setattr("mskd.inference.runners.choose", lambda *words, **more: last)
    engine = Engine(threshold_package(THRESHOLDS), "cpu")
    engine.warm_up()
    with pytest.raises(SettingsError, match="absent"):
        engine.run(levels(Geometry((9, 20, 21)))[0])


def test_nothing_is_measured_for_a_small_image(
    threshold_package: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mskd.inference.runners.choose", lambda *words, **more: pytest.fail("was measured"))
    report = Engine(threshold_package(THRESHOLDS), "cpu").run(levels(Geometry((9, 20, 21)))[0]).report
    assert (report["backend"], report["precision"], report["measured_ms"]) == ("torch_eager", "float32", {})
