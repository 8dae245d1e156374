"""The choice among backends: measured, kept, measured anew when something changed, never a wrong answer."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mskd.inference import machine, select
from mskd.inference.backends import BACKENDS
from mskd.inference.backends.torch_eager import TorchEager
from mskd.inference.select import candidates, choose, last_choice, measured_size

CPU = torch.device("cpu")
SHAPE = (1, 1, 20, 30, 40)
FINGERPRINT = "f" * 64


class Scripted(TorchEager):
    """PyTorch, with a clock that the test sets and faults on request."""

    seconds: ClassVar[float] = 0.0
    built: ClassVar[int] = 0
    fault: ClassVar[Exception | None] = None
    wrong: ClassVar[bool] = False

    def __init__(self, *arguments: Any) -> None:
        type(self).built += 1
        super().__init__(*arguments)

    def __call__(self, image: Tensor) -> Tensor:
        if self.fault is not None:
            raise self.fault
        Clock.now += self.seconds
        logits = super().__call__(image)
        return logits.flip(1) if self.wrong else logits


class Clock:
    now: ClassVar[float] = 0.0


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, type[Scripted]]:
    """Three scripted backends, the reference among them, that take 5, 3 and 9 ms; an empty cache."""
    BACKENDS.names()
    kinds = {
        name: type(name, (Scripted,), {"seconds": seconds, "precisions": ("float32", "bfloat16")})
        for name, seconds in (("torch_eager", 0.005), ("quick", 0.003), ("slow", 0.009))
    }
    monkeypatch.setattr(BACKENDS, "_entries", kinds)
    monkeypatch.setattr(select.time, "perf_counter", lambda: Clock.now)
    monkeypatch.setenv("MSKD_CACHE", str(tmp_path / "cache"))
    return kinds


@pytest.fixture
def package(threshold_package: Any) -> Any:
    return threshold_package()


def test_the_fastest_wins_and_is_not_measured_again(backends: Any, package: Any, tmp_path: Path) -> None:
    choice = choose(FINGERPRINT, package.load_network, CPU, SHAPE)
    assert (choice.backend, choice.precision) == ("quick", "float32")
    assert choice.milliseconds == {"torch_eager float32": 5.0, "quick float32": 3.0, "slow float32": 9.0}
    assert choose(FINGERPRINT, package.load_network, CPU, SHAPE) == choice
    assert [kind.built for kind in backends.values()] == [1, 1, 1]
    (kept,) = (tmp_path / "cache" / "backends").iterdir()
    assert json.loads(kept.read_text())["of"]["machine"]["versions"]["torch"]


@pytest.mark.parametrize("change", ["model", "size", "threads", "version"])
def test_what_changes_the_answer_is_part_of_the_key(
    backends: Any, package: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    choose(FINGERPRINT, package.load_network, CPU, SHAPE)
    fingerprint, shape = FINGERPRINT, SHAPE
    if change == "model":
        fingerprint = "0" * 64
    elif change == "size":
        shape = (1, 1, 8, 8, 8)
    elif change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    else:
        monkeypatch.setattr(machine, "_version", lambda name: "99")
    choose(fingerprint, package.load_network, CPU, shape)
    assert backends["quick"].built == 2


def test_nearly_the_same_size_is_not_measured_again(backends: Any, package: Any) -> None:
    choose(FINGERPRINT, package.load_network, CPU, (1, 1, 20, 30, 40))
    choose(FINGERPRINT, package.load_network, CPU, (1, 1, 21, 31, 41))
    assert backends["quick"].built == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"choice": {}}', '{"choice": {"backend": "gone", "precision": "x", "milliseconds": {}}}']
)
def test_a_damaged_cache_is_measured_anew(backends: Any, package: Any, tmp_path: Path, text: str) -> None:
    choice = choose(FINGERPRINT, package.load_network, CPU, SHAPE)
    (kept,) = (tmp_path / "cache" / "backends").iterdir()
    kept.write_text(text)
    assert choose(FINGERPRINT, package.load_network, CPU, SHAPE) == choice
    assert json.loads(kept.read_text())["choice"]["backend"] == "quick"


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    backends: Any, package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSKD_CACHE", str(tmp_path / "file"))
    assert choose(FINGERPRINT, package.load_network, CPU, SHAPE).backend == "quick"
    monkeypatch.setenv("MSKD_CACHE", "off")
    assert choose(FINGERPRINT, package.load_network, CPU, SHAPE).backend == "quick"
    assert [path.name for path in tmp_path.iterdir() if path.name == "cache"] == []


def test_one_that_fails_or_computes_otherwise_is_never_chosen(backends: Any, package: Any) -> None:
    backends["quick"].wrong = True
    backends["slow"].fault = RuntimeError("no such instruction")
    choice = choose(FINGERPRINT, package.load_network, CPU, SHAPE)
    assert choice.backend == "torch_eager"
    assert choice.milliseconds == {"torch_eager float32": 5.0, "quick float32": None, "slow float32": None}


def test_a_hopeless_one_is_run_once(backends: Any, package: Any) -> None:
    backends["slow"].seconds = 40.0
    Clock.now = 0.0
    choose(FINGERPRINT, package.load_network, CPU, SHAPE)
    assert 40 < Clock.now < 41


def test_out_of_memory_everywhere_still_gives_an_answer(backends: Any, package: Any) -> None:
    for kind in backends.values():
        kind.fault = MemoryError()
    assert choose(FINGERPRINT, package.load_network, CPU, SHAPE).backend == "torch_eager"


def test_a_fault_of_the_reference_is_not_hidden(backends: Any, package: Any) -> None:
    backends["torch_eager"].fault = RuntimeError("wrong channels")
    with pytest.raises(RuntimeError, match="wrong channels"):
        choose(FINGERPRINT, package.load_network, CPU, SHAPE)


@pytest.mark.parametrize("hardware", [False, True])
def test_bfloat16_is_tried_where_the_processor_has_it(
    backends: Any, package: Any, monkeypatch: pytest.MonkeyPatch, hardware: bool
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: hardware, raising=False)
    assert ("quick", "bfloat16") not in candidates(CPU, ("float32",))
    assert (("quick", "bfloat16") in candidates(CPU, ("float32", "bfloat16"))) == hardware


def test_the_reference_is_measured_whatever_is_allowed(backends: Any) -> None:
    assert candidates(CPU, ())[0] == ("torch_eager", "float32")


def test_a_sample_is_cut_to_what_is_measured(backends: Any, package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Scripted, "__call__", lambda self, image: seen.append(image) or image.expand(-1, 2, -1, -1, -1))
    sample = torch.arange(200**3, dtype=torch.float32).reshape(1, 1, 200, 200, 200)
    choose(FINGERPRINT, package.load_network, CPU, sample.shape, sample=sample)
    size = measured_size(sample.shape)
    assert seen[0].shape == size
    assert seen[0][0, 0, 0, 0, 0] == sample[(0, 0, *((200 - side) // 2 for side in size[2:]))]


@pytest.mark.parametrize("shape", [(1, 1, 500, 512, 512), (300, 2, 512, 512), (1, 4, 3, 5, 7), (1, 1, 10**6, 1, 1)])
def test_little_is_measured(shape: tuple[int, ...]) -> None:
    size = measured_size(shape)
    assert size[1] == shape[1]
    assert math.prod(size) // size[1] <= select.VOXELS
    assert all(0 < side <= whole for side, whole in zip(size, shape, strict=True))


@pytest.mark.parametrize(("seconds", "voxels"), [(0.005, 100**3), (0.25, 2 * 64**3), (2.0, 64**3)])
def test_the_lighter_the_network_the_larger_the_piece(
    backends: Any, package: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, voxels: int
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(backends["torch_eager"], "seconds", seconds)
    monkeypatch.setattr(
        Scripted,
        "__call__",
        lambda self, image: seen.append(image.numel()) or clocked(self, image.expand(-1, 2, -1, -1, -1)),
    )
    choose(FINGERPRINT, package.load_network, CPU, (1, 1, 100, 100, 100))
    assert max(seen) <= voxels
    assert seen[-1] == max(seen) > voxels / 2.1


def clocked(backend: Scripted, logits: Tensor) -> Tensor:
    Clock.now += backend.seconds
    return logits


@pytest.mark.parametrize(("seconds", "winner"), [(0.0034, "torch_eager"), (0.0033, "quick")])
def test_what_is_hardly_faster_is_not_worth_loading(backends: Any, package: Any, seconds: float, winner: str) -> None:
    backends["quick"].seconds = seconds
    assert choose(FINGERPRINT, package.load_network, CPU, SHAPE).backend == winner


def test_the_last_answer_of_a_model_is_known_without_a_size(backends: Any, package: Any, tmp_path: Path) -> None:
    assert last_choice(FINGERPRINT, CPU) is None
    first = choose(FINGERPRINT, package.load_network, CPU, SHAPE)
    assert last_choice(FINGERPRINT, CPU) == first
    assert last_choice("0" * 64, CPU) is None
    backends["quick"].seconds = 1.0
    second = choose(FINGERPRINT, package.load_network, CPU, (1, 1, 80, 80, 80))
    now = time.time()
    for place in (tmp_path / "cache" / "backends").iterdir():
        age = 5 if json.loads(place.read_text())["choice"]["backend"] == "torch_eager" else 9
        os.utime(place, (now - age, now - age))
    assert second.backend == "torch_eager"
    assert last_choice(FINGERPRINT, CPU) == second
    choose(FINGERPRINT, package.load_network, CPU, SHAPE)  # kept, and so the latest again
    assert last_choice(FINGERPRINT, CPU) == first


def test_the_only_backend_was_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSKD_CACHE", "off")
    monkeypatch.setattr("mskd.inference.select.candidates", lambda *words: [("torch_eager", "float32")])
    last = last_choice(FINGERPRINT, CPU)
    assert last is not None
    assert last.backend == "torch_eager"


def test_what_is_installed_is_measured_for_real(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSKD_CACHE", "off")
    choice = choose(package.fingerprint, package.load_network, CPU, (1, 1, 12, 13, 14))
    assert all(choice.milliseconds.values()), choice
    assert "torch_compile float32" not in choice.milliseconds


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, ".cache/mskd"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/mskd"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "Library/Caches/mskd"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/mskd"),
        ("linux", {"MSKD_CACHE": "/elsewhere"}, "/elsewhere"),
        ("linux", {"MSKD_CACHE": "OFF"}, None),
    ],
)
def test_the_cache_lies_where_the_system_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, variables: dict[str, str], expected: str | None
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "MSKD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(machine.sys, "platform", platform)
    assert machine.cache_folder() == (None if expected is None else tmp_path / expected)
