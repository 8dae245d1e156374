"""Unusual data and settings that a run has to bear."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from volumes import NAMES, blocks, write_dataset

from mskd.errors import SettingsError
from mskd.networks import build_network
from mskd.package import Package
from mskd.spec import NetworkSpec
from mskd.training.run import RunOptions, distil, train
from mskd.training.settings import load_recipe

Cases = dict[str, tuple[np.ndarray, np.ndarray | None]]
Run = Callable[..., Package]
SLICES = ("input.patch=[16, 16]", "input.spacing=[0, 1.0, 1.0]")
THREE_LEVELS = "student.arguments.channels=[2, 4, 8]"
DEEP = "student.arguments.channels=[2, 2, 2, 2, 2]"


def standard(count: int = 6, shape: tuple[int, ...] = (12, 14, 16)) -> Cases:
    return {f"c{index}": blocks(index, shape) for index in range(count)}


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    """Writes a data set and trains a student on it for two steps, or as the overrides say."""

    def call(cases: Cases, *overrides: str, names: Any = NAMES, ignore: int | None = None) -> Package:
        dataset = write_dataset(tmp_path / "data", cases, names, ignore)
        short = ("student.optimization.steps=2", "student.optimization.validate_every=1")
        recipe = load_recipe(str(tiny_recipe), (*short, *overrides))
        return train(dataset.path, recipe, "student", RunOptions(tmp_path / "run", device="cpu", jobs=1))

    return call


@pytest.fixture
def teacher(tmp_path: Path, tiny_recipe: Path) -> Path:
    """A teacher of the standard cases; its data set is at ``tmp_path / "data"``."""
    write_dataset(tmp_path / "data", standard())
    recipe = load_recipe(str(tiny_recipe), ("split.test=0", "teacher.optimization.steps=60"))
    path = train(tmp_path / "data", recipe, "teacher", RunOptions(tmp_path / "teacher", device="cpu", jobs=1)).path
    assert path is not None
    return path


@pytest.mark.parametrize("more", [(), SLICES])
def test_a_batch_of_one_trains_unless_it_is_a_single_voxel_deep_down(
    run: Run, tmp_path: Path, more: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError, match=r"A batch of 1 .* is a single voxel at the network's deepest level"):
        run(standard(), *more, "student.optimization.batch=1", DEEP)
    assert not list(tmp_path.glob("run/*"))  # before any case is read
    run(standard(), *more, "student.optimization.batch=1")
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]


def test_instances_of_a_single_voxel_are_normalised_over_a_padded_pair() -> None:
    arguments = {"dim": 3, "in_channels": 1, "classes": 2, "channels": [2, 2, 2], "norm": "instance"}
    network = build_network(NetworkSpec(name="residual_unet", arguments=arguments))
    image = torch.randn(1, 1, 3, 4, 2)
    whole = torch.nn.functional.pad(image, (0, 6, 0, 0, 0, 1))
    for mode in (True, False):
        torch.testing.assert_close(network.train(mode)(image), network(whole)[..., :3, :, :2])


@pytest.mark.parametrize("patch", ["[7, 9, 11]", "[24, 32, 17]"])
def test_patches_are_odd_or_larger_than_the_images(run: Run, patch: str) -> None:
    run(standard(), f"input.patch={patch}", "student.optimization.deep_supervision=true", THREE_LEVELS)


@pytest.mark.parametrize(
    "more",
    [SLICES, (), ("student.network=residual_unet", "student.arguments={ channels = [2, 2, 2], norm='instance' }")],
)
def test_images_are_smaller_than_the_patch(run: Run, more: tuple[str, ...]) -> None:
    cases = standard() | {"c0": blocks(0, (3, 3, 3)), "c1": blocks(1, (5, 20, 2)), "c2": blocks(2, (3, 4, 3))}
    run(cases, *more, "split.validation=0.5", "split.test=0")


@pytest.mark.parametrize("more", [(), SLICES])
def test_volumes_are_single_slices(run: Run, more: tuple[str, ...]) -> None:
    assert {metric.label for metric in run(standard(6, (1, 20, 20)), *more).manifest.metrics} == set(NAMES)


def test_an_organ_is_one_voxel_and_a_case_shows_none(run: Run, tmp_path: Path) -> None:
    cases = standard()
    for index, (_, labels) in enumerate(cases.values()):
        assert labels is not None
        labels[labels == 2] = 0
        labels[6, 6, 6 + index] = 2
    for name in ("c0", "c1"):
        cases[name] = (cases[name][0], np.zeros((12, 14, 16), np.uint8))
    run(cases, "student.optimization.deep_supervision=true", THREE_LEVELS, "split.test=0")
    assert all(np.isfinite(row["loss/supervision"]) for row in rows(tmp_path / "run"))


def test_two_hundred_classes(run: Run) -> None:
    rng, shape = np.random.default_rng(0), (8, 8, 8)
    cases: Cases = {f"c{index}": (blocks(index, shape)[0], rng.permutation(512) % 201) for index in range(4)}
    cases = {name: (image, labels.reshape(shape).astype(np.uint8)) for name, (image, labels) in cases.items()}
    package = run(cases, "input.patch=[8, 8, 8]", names=[f"organ {value}" for value in range(1, 201)])
    assert len(package.manifest.labels) == len(package.manifest.metrics) == 200


def test_two_channels(run: Run) -> None:
    package = run({name: (np.stack([image, -image]), labels) for name, (image, labels) in standard().items()})
    assert len(package.manifest.channels) == 2


def test_what_lies_under_ignored_voxels_does_not_matter(run: Run, tmp_path: Path) -> None:
    """Among the labels, that is; the image around is still seen."""
    extra = ("loss.overlap=tversky", "loss.voxel=focal", "student.optimization.deep_supervision=true")
    cases = standard()
    for _, labels in cases.values():
        assert labels is not None
        labels[:, :3] = 3
    cases["c0"] = (cases["c0"][0], np.full((12, 14, 16), 3, np.uint8))
    package = run(cases, *extra, "split.test=0", "student.optimization.batch=1", THREE_LEVELS, ignore=3)
    assert [label.name for label in package.manifest.labels] == list(NAMES)
    assert {"loss/tversky", "loss/focal", "loss/supervision"} <= rows(tmp_path / "run")[-1].keys()
    assert all(np.isfinite(row["loss/tversky"]) for row in rows(tmp_path / "run"))


def test_no_case_validates(run: Run) -> None:
    assert run(standard(), "split.validation=0").manifest.metrics == ()


def test_settings_far_from_the_defaults(run: Run, tmp_path: Path) -> None:
    training = "schedule=poly precision=bf16 ema=0 workers=2 accumulate=2 deep_supervision=true steps=6 patience=2"
    try:
        package = run(
            standard(),
            *(f"student.optimization.{item}" for item in training.split()),
            "deterministic=true",
            "split.test=0",
            THREE_LEVELS,
        )
    finally:
        torch.use_deterministic_algorithms(False)
    best = torch.load(tmp_path / "run/checkpoints/best.pt", weights_only=True)
    shipped = package.load_network().state_dict()
    assert all(torch.equal(tensor, shipped[name]) for name, tensor in best["network"].items())
    rates = [row["learning_rate"] for row in rows(tmp_path / "run")]
    assert rates[:3] == pytest.approx([0.01, 0.01, 0.01 * 0.8**0.9])


def test_patience_ends_a_run_that_does_not_improve(run: Run, tmp_path: Path) -> None:
    run(standard(), "student.optimization.steps=50", "student.optimization.patience=2", "student.optimization.ema=0")
    dice = [row["dice/mean"] for row in rows(tmp_path / "run")]
    assert len(dice) < 50
    assert int(np.argmax(dice)) == len(dice) - 3


def test_deep_supervision_distillation_and_accumulation_go_together(
    teacher: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    training = "deep_supervision=true accumulate=2 precision=bf16 batch=1"
    recipe = load_recipe(
        str(tiny_recipe), ("split.test=0", THREE_LEVELS, *(f"student.optimization.{item}" for item in training.split()))
    )
    distil(tmp_path / "data", str(teacher), recipe, RunOptions(tmp_path / "run", device="cpu", jobs=1))
    terms = {name for name in rows(tmp_path / "run")[-1] if name.startswith("loss/")}
    assert terms == {f"loss/{name}" for name in ("dice", "ce", "supervision", "kd", "ffd", "rgd")}


def test_a_second_run_takes_the_teachers_logits_from_the_cache(
    teacher: Path, tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mskd.training import teacherlogits

    asked: list[str] = []
    whole_logits = teacherlogits.whole_logits
    monkeypatch.setattr(
        teacherlogits,
        "whole_logits",
        lambda network, case, *rest: asked.append(case.id) or whole_logits(network, case, *rest),
    )
    write_dataset(tmp_path / "data", standard() | {f"u{index}": (blocks(10 + index)[0], None) for index in range(2)})
    extra = ("split.test=0", "distillation.terms={ kd = {} }", "distillation.teacher_logits=cached")
    recipe = load_recipe(str(tiny_recipe), (*extra, "student.optimization.unlabelled=0.5"))
    packages = []
    for name, expected in (("first", 7), ("second", 7)):  # five training cases, two unlabelled ones
        options = RunOptions(tmp_path / name, device="cpu", jobs=1, cache=tmp_path / "cache")
        packages.append(distil(tmp_path / "data", str(teacher), recipe, options).load_network().state_dict())
        assert len(asked) == expected
    assert {"u0", "u1"} <= set(asked)
    assert all(torch.equal(tensor, packages[1][name]) for name, tensor in packages[0].items())
    assert rows(tmp_path / "first")[-1]["loss/kd"] > 0
