"""The engine's benchmark: its arithmetic, aims and page; with the peers installed, all of it on a crop."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import typer.main

HERE = Path(__file__).parent


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module that lies beside this file."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


def row(contender: str, total: float, peak: float, kind: str = "mskd", **more: Any) -> dict[str, Any]:
    student = "" if kind == "nnunet" else "light"
    seconds = {"read": 0.1 * total, "network": 0.5 * total, "restore": 0.1 * total, "total": total}
    about = {"image": "chest", "contender": contender, "kind": kind, "student": student, "rounds": 3}
    return {**about, "seconds": seconds, "peak_mb": peak, "process_seconds": total + 1, **more}


def failed(contender: str, kind: str) -> dict[str, Any]:
    about = {"image": "chest", "contender": contender, "kind": kind, "student": "light", "rounds": 0}
    return {**about, "failed": {"code": -9, "said": "killed"}}


@pytest.fixture
def found() -> dict[str, Any]:
    """What ``engine.py`` would write, with numbers chosen so that aims are met and missed."""
    extrapolated = {"windows_computed": 4, "windows_total": 32, "seconds_per_window": 15.0, "seconds_added": 420.0}
    return {
        "command": "python Testing/benchmarks/engine.py",
        "machine": {"processor": "P", "flags": [], "threads": 2, "cores": 2, "memory_gb": 8, "system": "Linux"},
        "versions": {"torch": "2.13.0", "openvino": None},
        "settings": {"students": ["light", "strided"]},
        "summary": [
            row("mskd light auto", 4.0, 1000.0),
            row("mskd light other", 2.0, 900.0),
            row("nnunet", 480.0, 5000.0, "nnunet", extrapolated=extrapolated),
            row("nnunet-student light", 100.0, 4000.0, "nnunet-student"),
            failed("monai light", "monai"),
        ],
        "roofline": {
            "chest: mskd light auto": {"gflops": 1, "gflops_per_second": 1, "seconds": 1, "times_roofline": 2.0}
        },
        "guard": {
            "model": "m 1.0.0",
            "images": 2,
            "mean_dice": 0.99,
            "least_dice": 0.98,
            "whole_volumes": 2,
            "backend": "b",
        },
    }


def test_a_phase_inside_another_is_counted_once(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("peers.clock")
    now = iter([0.0, 1.0, 3.0, 10.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    clock = module.Clock()
    with clock.phase("outer"), clock.phase("inner"):
        pass
    assert clock.seconds == {"inner": 2.0, "outer": 8.0}


def test_watching_counts_calls_of_others(load: Any) -> None:
    clock, owner = load("peers.clock").Clock(), SimpleNamespace(double=lambda value: 2 * value)
    clock.watch(owner, "double", "doubling")
    assert [owner.double(2), owner.double(value=3)] == [4, 6]
    assert clock.seconds["doubling"] > 0


def test_windows_that_are_not_computed_are_counted_with_the_median(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("peers.nnunet")
    # Windows of 9 s (it warms up) and 2 s, whose copy takes 1 s as do those of the two that are not computed.
    ticks = iter([0, 9, 10, 12, 13, 20, 21, 30, 31])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    calls: list[int] = []

    def forward(window: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return window + len(calls)

    predictor = SimpleNamespace(_internal_maybe_mirror_and_predict=forward)
    windows = module.Windows(predictor, limit=2)
    inputs = [torch.zeros(1) for _ in range(4)]
    outputs = [predictor._internal_maybe_mirror_and_predict(window) for window in inputs]
    assert len(calls) == 2
    assert [float(logits) for logits in outputs] == [1.0, 2.0, 2.0, 2.0]
    assert outputs[2] is not outputs[3], "the predictor weighs what it gets in place"
    added = windows.extrapolated()
    assert added == {
        "windows_computed": 2,
        "windows_total": 4,
        "seconds_per_window": 2.0,
        "seconds_added": 2 * 2.0 - 3.0,
    }


def test_all_windows_computed_means_nothing_is_extrapolated(load: Any) -> None:
    predictor = SimpleNamespace(_internal_maybe_mirror_and_predict=lambda window: window)
    windows = load("peers.nnunet").Windows(predictor, limit=0)
    predictor._internal_maybe_mirror_and_predict(torch.zeros(1))
    assert windows.extrapolated() is None


MEASURE = """
import json, sys
from pathlib import Path
from peers.child import last_words, run_child
ended = [run_child([sys.executable, "-c", code], {}, Path(sys.argv[1])) for code in sys.argv[2:]]
print(json.dumps([[one.peak_mb, one.code] for one in ended] + [last_words(Path(sys.argv[1]))]))
"""


def test_a_childs_peak_is_its_own(tmp_path: Path) -> None:
    # From a small process, as engine.py is one: a child's peak includes what its parent held when it started.
    line = [sys.executable, "-c", MEASURE, str(tmp_path / "log")]
    codes = ["pass", "len(b'1' * 200_000_000)", "print('why'); raise SystemExit(3)"]
    said = subprocess.run([*line, *codes], env={"PYTHONPATH": str(HERE)}, capture_output=True, check=True).stdout
    (small, first), (large, second), (_, third), words = json.loads(said)
    assert (first, second, third, words) == (0, 0, 3, "why")
    assert 180 < large - small < 300


def test_what_starts_the_children_stays_small() -> None:
    code = "import sys, engine; print(sorted({'torch', 'numpy', 'mskd', 'SimpleITK'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(HERE)}, capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_only_a_tuned_child_keeps_freed_memory(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = load("peers.child")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert not any(name.startswith("MALLOC_") for name in child.environment(2, tmp_path))
    assert child.TUNED.items() <= child.environment(2, tmp_path, tuned=True).items()


def test_the_engine_is_run_by_a_command_that_exists(load: Any, tmp_path: Path) -> None:
    from mskd.cli import app

    module = load("peers.contenders")
    task = module.Task("chest", tmp_path / "a.nii.gz", {"light": tmp_path / "light"}, tmp_path)
    files = module.Files(tmp_path / "b.nii.gz", tmp_path / "c.json", tmp_path / "log")
    line = module.command(module.Contender("mskd", "light", "auto"), task, files, 4, "")
    known = {name for parameter in typer.main.get_command(app).commands["segment"].params for name in parameter.opts}
    assert {word for word in line[4:] if word.startswith("-")} <= known


def test_the_engines_report_is_read_as_the_others_are(load: Any, tmp_path: Path) -> None:
    module = load("peers.contenders")
    report = {"milliseconds": {"read": 1000, "windows": 2000, "total": 3500, "write": 250}, "backend": "b", "plan": {}}
    (tmp_path / "r.json").write_text(json.dumps(report))
    read = module.read_result(module.Contender("mskd", "light", "auto"), tmp_path / "r.json")
    assert read["seconds"] == {"read": 1.0, "network": 2.0, "total": 3.5, "write": 0.25, "other": 0.25}
    assert read["told"] == {"backend": "b", "plan": {}}


def test_ours_run_after_each_of_the_others(load: Any) -> None:
    contender, in_order = load("peers.contenders").Contender, load("engine").in_order
    ours, others = [contender("mskd", "a"), contender("mskd", "b")], [contender("nnunet"), contender("monai", "a")]
    nnunet, monai = others
    assert in_order([*others, *ours], 2) == [nnunet, *ours, monai, *ours]
    assert in_order([*others, *ours], 1) == [monai, *ours, nnunet, *ours]
    assert in_order([*others, *ours], 0) == ours
    assert in_order(ours, 1) == ours


def test_medians_leave_out_the_first_round_and_keep_failures(load: Any) -> None:
    def run(turn: int, total: float, **more: Any) -> dict[str, Any]:
        about = {"image": "i", "contender": "c", "kind": "k", "student": "", "round": turn, "peak_mb": total}
        return {**about, "process_seconds": total, "seconds": {"total": total}, **more}

    runs = [run(0, 99.0), run(1, 1.0), run(2, 5.0), run(3, 2.0)]
    (kept,) = load("engine").summarised(runs)
    assert kept["seconds"] == {"total": 2.0}
    assert kept["seconds_range"] == [1.0, 5.0]
    failure = {"code": -9, "said": "killed"}
    (kept,) = load("engine").summarised([run(1, 1.0, failed=failure)])
    assert kept["failed"] == failure


def test_aims_are_judged_from_the_numbers(load: Any, found: dict[str, Any]) -> None:
    judged = {verdict.aim: (verdict.found, verdict.met) for verdict in load("aims").verdicts(found)}
    faster = "at least 100 times faster, end to end, than nnU-Net's default network and predictor"
    assert judged[f"{faster}, as shipped"] == ("120.0 times", True)
    assert judged[f"{faster}, tuned"] == (None, None)
    assert judged["at most 1/4 of the memory of nnU-Net's default"] == ("0.20 of it", True)
    same = "at least 20 times faster, end to end, than {} with the same student, as shipped"
    assert judged[same.format("nnU-Net's predictor")] == ("25.0 times", True)
    assert judged[same.format("MONAI's window")] == (None, None), "it failed"
    assert judged["the network within 3 times its roofline"] == ("2.0 times", True)
    assert judged["back to the image's grid in under 20 % of the total"] == ("10 %", True)
    assert judged["Dice against plain windows at least 0.995, trained weights"] == ("0.9900", False)


def test_the_page_shows_what_was_found(load: Any, found: dict[str, Any]) -> None:
    page = load("engine_report").render(found)
    assert "| mskd light other | 2.00 | 1.0 |" in page
    assert "| nnunet | 480.00* | 240.0 |" in page
    assert "4 of 32 windows were computed" in page
    assert "| monai light | failed (code -9) |" in page
    assert "0.9900 | **not met** |" in page
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_chart_names_every_contender_that_ended(load: Any, found: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = load("engine_report")
    report.draw(found, tmp_path / "chart.svg")
    first = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    assert "<!-- mskd light auto -->" in first
    assert "<!-- monai light -->" not in first
    report.draw(found, tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_text(encoding="utf-8") == first, "the same numbers give the same file"


def test_the_committed_page_shows_the_committed_results(load: Any) -> None:
    assert load("engine_report").main(["--check"]) == 0


def test_flops_are_those_of_the_convolutions(load: Any, threshold_package: Any) -> None:
    roofline: ModuleType = load("peers.roofline")
    package = threshold_package()
    small, large = (roofline.network_flops(package.path, [side, 16, 16]) for side in (16, 32))
    head = 2 * 2 * 2 * 16**3  # 2 FLOP x 2 channels in x 2 out, a voxel
    assert large == 2 * small
    assert small > head
    assert roofline.matrix_rate(64) > 0


def test_the_benchmark_runs_on_a_crop(tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    pytest.importorskip("monai")
    (tmp_path / "volumes").mkdir()
    rng = np.random.default_rng(0)
    array = np.kron(rng.normal(0, 300, (5, 5, 5)), np.ones((8, 8, 8))) + rng.normal(0, 20, (40, 40, 40))
    image = sitk.GetImageFromArray(array.astype(np.int16))
    image.SetSpacing((2.0, 2.0, 2.5))
    sitk.WriteImage(image, str(tmp_path / "volumes/body_ct_3mm.nii.gz"))
    output = tmp_path / "engine.json"
    line = [sys.executable, str(HERE / "engine.py"), "--data", str(tmp_path), "--output", str(output)]
    peers = ("nnunet", "nnunet-student", "monai", "monai-nearest")
    done = subprocess.run(
        [*line, "--quick", "--rounds", "1", "--windows", "1", "--threads", "1", "--peers", *peers],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text(encoding="utf-8"))
    rows = {row["contender"]: row for row in found["summary"]}
    assert not [row for row in rows.values() if "failed" in row]
    assert {
        "mskd light auto",
        "mskd strided auto",
        "nnunet",
        "nnunet tuned",
        "monai strided",
        "monai-nearest strided",
    } <= rows.keys()
    assert rows["nnunet"]["extrapolated"]["windows_computed"] == 1
    assert all(row["seconds"]["network"] > 0 and row["peak_mb"] > 50 for row in rows.values())
    assert found["roofline"]["crop: mskd light auto"]["gflops"] > 0
    # Fifteen random labels would agree in a fifteenth; two steps of training on noise are no better than this.
    assert min(share["equal"] for share in found["agreement"]["crop"]["shares"]) > 0.3
