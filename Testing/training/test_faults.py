"""Faults in the middle of whole runs: each ends in a sentence that names the culprit, and costs nothing already won."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from volumes import blocks, change_voxel, write_dataset

from mskd.data import Split, split_cases
from mskd.errors import InputError, SettingsError
from mskd.events import Event
from mskd.package import open_package, save_package
from mskd.training.checkpoint import Checkpoints
from mskd.training.run import RunOptions, distil, train
from mskd.training.settings import Recipe, load_recipe

FullDisk = Callable[[int], AbstractContextManager[None]]
NO_NORMALISATION = 'input.normalization={ name = "none" }'


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(tmp_path / "run", device="cpu", jobs=1)


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(str(tiny_recipe), ("student.optimization.steps=4", "student.optimization.validate_every=2"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return open_package(run / "model").load_network().state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def problems(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "problems.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_voxel_that_is_no_number_stops_the_run_or_costs_that_case(
    tmp_path: Path, tiny_recipe: Path, options: RunOptions, fault: float
) -> None:
    cases = {f"c{index}": blocks(index) for index in range(6)}
    culprit = split_cases(write_dataset(tmp_path / "data", cases), 0, 0.2, 0.2).train[1]
    change_voxel(tmp_path / f"data/imagesTr/{culprit}_0000.nii.gz", fault)
    with pytest.raises(InputError, match=rf"{culprit}_0000.nii.gz: 1 of 2688 voxels are NaN or infinite"):
        train(tmp_path / "data", load_recipe(str(tiny_recipe)), "student", options)
    train(tmp_path / "data", load_recipe(str(tiny_recipe), ("data.bad_cases=skip",)), "student", options)
    assert [problem["case"] for problem in problems(options.output)] == [culprit]


def test_an_image_that_overflows_stops_the_run_or_costs_its_steps(
    tmp_path: Path, tiny_recipe: Path, options: RunOptions
) -> None:
    cases = {f"c{index}": blocks(index) for index in range(6)}
    cases["c3"] = (cases["c3"][0] * np.float32(1e36), cases["c3"][1])
    write_dataset(tmp_path / "data", cases)
    training = ("student.optimization.steps=16", "student.optimization.batch=1", "split.validation=0", "split.test=0")
    extra = (NO_NORMALISATION, *training)
    with pytest.raises(InputError, match=r"Step \d+: .* is (nan|inf) for cases c3; look at these images"):
        train(tmp_path / "data", load_recipe(str(tiny_recipe), extra), "student", options)
    skipping = load_recipe(str(tiny_recipe), (*extra, "student.optimization.not_finite=skip"))
    train(tmp_path / "data", skipping, "student", replace(options, overwrite=True))
    found = problems(options.output)
    assert {problem["what"] for problem in found} >= {"the running statistics of the network"}
    assert {name for problem in found for name in problem["cases"]} == {"c3"}
    assert all(tensor.isfinite().all() for tensor in weights(options.output).values())


def test_a_data_set_without_a_sound_training_case_is_said_to_be_that(
    tiny_dataset: Path, tiny_recipe: Path, options: RunOptions
) -> None:
    for path in (tiny_dataset / "imagesTr").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"none of the 6 training cases can be read; the first fault: .*case_\d"):
        train(tiny_dataset, load_recipe(str(tiny_recipe), ("data.bad_cases=skip",)), "student", options)


@pytest.mark.parametrize("only", ["test", "validation", "nowhere"])
def test_a_class_that_no_training_case_shows_is_refused(
    tmp_path: Path, recipe: Recipe, options: RunOptions, only: str
) -> None:
    cases = {f"c{index}": blocks(index) for index in range(10)}
    split = split_cases(write_dataset(tmp_path / "data", cases), 0, 0.2, 0.2)
    for name, (_, labels) in cases.items():
        labels[(labels == 2) & (name not in getattr(split, only, ()))] = 0
    write_dataset(tmp_path / "data", cases)
    with pytest.raises(InputError, match=r"'dark' \(value 2\) occurs in none of the 6 training cases"):
        train(tmp_path / "data", recipe, "student", options)
    assert not (options.output / "settings.json").exists()


@pytest.mark.parametrize(
    ("step", "size", "place"),
    [
        (0, 2000, "settings.json"),
        (0, 9000, "cache"),
        (3, 200, "metrics.jsonl"),
        (3, 5000, "tensorboard"),
        (2, 30_000, "checkpoints/best.pt"),
        (3, 60_000, "checkpoints/step-00000004.pt"),
    ],
)
def test_a_disk_that_fills_up_costs_no_step_before(
    tiny_dataset: Path, recipe: Recipe, tmp_path: Path, full_disk: FullDisk, step: int, size: int, place: str
) -> None:
    shared = tmp_path / "shared"
    train(tiny_dataset, recipe, "student", RunOptions(tmp_path / "whole", device="cpu", jobs=1, cache=shared))
    cache = tmp_path / "cut/cache" if place == "cache" else shared
    with ExitStack() as held:
        filled: list[bool] = []

        def fill(event: Event) -> None:
            phase = "train" if step else "read training cases"
            if event.phase == phase and event.done >= step and not filled:
                filled.append(True)
                held.enter_context(full_disk(size))

        options = RunOptions(tmp_path / "cut", device="cpu", jobs=1, cache=cache, on_event=fill)
        with pytest.raises(InputError, match=r"could not be written|cannot be written") as raised:
            train(tiny_dataset, recipe, "student", options)
    assert str(options.output / place) in str(raised.value)
    assert "enforce fail" not in str(raised.value)
    assert raised.value.exit_code == 3
    assert not [path for path in options.output.rglob("*") if path.name.endswith(".partial") or path.name[0] == "."]
    left = sorted((options.output / "checkpoints").glob("step-*.pt"))
    assert [torch.load(path, weights_only=True)["step"] for path in left] == ([2] if step == 3 else [])
    started = (options.output / "settings.json").exists()
    train(tiny_dataset, recipe, "student", replace(options, resume=started, on_event=lambda event: None))
    assert same(weights(tmp_path / "whole"), weights(options.output))
    rows = (options.output / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [2, 4]


def test_a_disk_too_full_for_the_package_costs_no_training(
    tiny_dataset: Path, recipe: Recipe, options: RunOptions, full_disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*arguments: Any, **more: Any) -> None:
        with full_disk(20_000):
            save_package(*arguments, **more)

    monkeypatch.setattr("mskd.training.run.save_package", save)
    with pytest.raises(InputError, match="model cannot be written") as raised:
        train(tiny_dataset, recipe, "student", options)
    monkeypatch.undo()
    assert raised.value.exit_code == 3
    assert not list(options.output.glob("*model*"))
    kept = files(options.output / "checkpoints")
    assert train(tiny_dataset, recipe, "student", replace(options, resume=True)).load_network()
    assert files(options.output / "checkpoints") == kept


@pytest.mark.parametrize("part", ["labelsTr", "imagesTr"])
def test_data_that_changed_are_not_resumed_with(
    tiny_dataset: Path, recipe: Recipe, options: RunOptions, part: str
) -> None:
    train(tiny_dataset, recipe, "student", options)
    split = Split.load(options.output / "split.json")
    case = split.train[0] if part == "labelsTr" else split.validation[0]
    before = files(options.output / "checkpoints")
    change_voxel(tiny_dataset / part / f"{case}.nii.gz", 1)
    with pytest.raises(SettingsError, match="other settings or other data; resume with those"):
        train(tiny_dataset, recipe, "student", replace(options, resume=True))
    assert files(options.output / "checkpoints") == before


def test_a_run_goes_on_with_moved_data_and_other_workers_but_not_with_another_teacher(
    tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path, options: RunOptions
) -> None:
    teachers = []
    for seed in ("0", "1"):
        overrides = ("teacher.optimization.steps=60", f"seed={seed}")
        folder = RunOptions(tmp_path / f"teacher {seed}", device="cpu", jobs=1)
        train(tiny_dataset, load_recipe(str(tiny_recipe), overrides), "teacher", folder)
        teachers.append(str(folder.output / "model"))
    recipe = load_recipe(str(tiny_recipe))
    distil(tiny_dataset, teachers[0], recipe, options)
    first = weights(options.output)
    (options.output / "checkpoints/step-00000006.pt").unlink()
    with pytest.raises(SettingsError, match="other settings or other data"):
        distil(tiny_dataset, teachers[1], recipe, replace(options, resume=True))
    tiny_dataset.rename(tmp_path / "moved")
    others = load_recipe(str(tiny_recipe), ("student.optimization.workers=2",))
    distil(tmp_path / "moved", teachers[0], others, replace(options, resume=True))
    assert same(first, weights(options.output))


def test_resuming_a_finished_run_rewrites_its_model_and_trains_nothing(
    tiny_dataset: Path, recipe: Recipe, options: RunOptions
) -> None:
    train(tiny_dataset, recipe, "student", options)
    before = {path: path.read_bytes() for path in (options.output / "model").iterdir()}
    kept = files(options.output / "checkpoints")
    seen: list[Event] = []
    train(tiny_dataset, recipe, "student", replace(options, resume=True, on_event=seen.append))
    assert [event.text for event in seen if event.phase == "train"] == [
        "This run was finished at step 4; its model is rewritten."
    ]
    assert {path: path.read_bytes() for path in (options.output / "model").iterdir()} == before
    assert files(options.output / "checkpoints") == kept


def test_a_newest_checkpoint_that_is_damaged_gives_way_to_the_one_before(
    tiny_dataset: Path, recipe: Recipe, options: RunOptions
) -> None:
    train(tiny_dataset, recipe, "student", options)
    first, newest = weights(options.output), options.output / "checkpoints/step-00000004.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(tiny_dataset, recipe, "student", replace(options, resume=True))
    assert same(first, weights(options.output))
    last = Checkpoints(newest.parent, torch.load(newest, weights_only=True)["digest"]).load_last()
    assert last is not None
    assert last["step"] == 4


def test_data_and_a_complete_cache_may_be_read_only(
    tiny_dataset: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, access = tmp_path / "cache", os.access
    train(tiny_dataset, recipe, "student", RunOptions(tmp_path / "first", device="cpu", jobs=1, cache=cache))
    locked = [path for folder in (tiny_dataset, cache) for path in (folder, *folder.rglob("*"))]
    before = files(tiny_dataset) | files(cache)
    for path in locked:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # Whoever runs the tests as root may write anywhere, and must not be told so.
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and not (mode & os.W_OK and path in locked))
    try:
        train(tiny_dataset, recipe, "student", RunOptions(tmp_path / "second", device="cpu", jobs=1, cache=cache))
    finally:
        for path in locked:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))
    assert files(tiny_dataset) | files(cache) == before
