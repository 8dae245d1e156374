"""Whole runs on a tiny data set: what lies in the folder, resuming, and what is refused before step 1."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mskd.data import Split, open_dataset, split_cases
from mskd.errors import Cancelled, InputError, SettingsError
from mskd.events import Event
from mskd.package import open_package
from mskd.training.run import RunOptions, distil, train
from mskd.training.settings import load_recipe

TIMES = {"seconds_per_step", "loader_wait"}


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    return RunOptions(tmp_path / "run", device="cpu")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return open_package(run / "model").load_network().state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_holds_exactly_what_it_promises(tiny_dataset: Path, tiny_recipe: Path, options: RunOptions) -> None:
    recipe = load_recipe(str(tiny_recipe))
    package = train(tiny_dataset, recipe, "student", options)
    run = options.output
    names = {
        "settings.json",
        "split.json",
        "metrics.csv",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "model",
        "cache",
    }
    assert {path.name for path in run.iterdir()} == names
    assert any((run / "tensorboard").iterdir())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert (run / "metrics.csv").read_text().count("\n") == 3
    settings = json.loads((run / "settings.json").read_text())
    assert settings["recipe"] == recipe.model_dump(mode="json")
    split = Split.load(run / "split.json")
    assert (len(split.train), len(split.validation), len(split.test)) == (6, 2, 2)
    manifest = package.manifest
    assert [label.name for label in manifest.labels] == ["bright", "dark"]
    assert manifest.provenance.data_fingerprint == settings["data_fingerprint"]
    assert manifest.training_data is not None
    assert (manifest.training_data.cases, manifest.training_data.extent[0].high) == (6, 12.0)
    assert {(metric.label, metric.split) for metric in manifest.metrics} == {
        ("bright", "validation"),
        ("dark", "validation"),
    }


def test_test_cases_are_never_read(tiny_dataset: Path, tiny_recipe: Path, options: RunOptions) -> None:
    recipe = load_recipe(str(tiny_recipe))
    train(tiny_dataset, recipe, "student", options)
    first = weights(options.output)
    for case in open_dataset(tiny_dataset).select(Split.load(options.output / "split.json").test):
        case.images[0].write_bytes(b"not an image")
    train(tiny_dataset, recipe, "student", replace(options, overwrite=True))
    assert same(first, weights(options.output))


@pytest.mark.parametrize("distilling", [False, True])
def test_an_interrupted_run_resumes_bit_for_bit(
    tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path, distilling: bool
) -> None:
    # The controls draw at random in each step, and the limit remembers what it saw.
    controls = ("distillation.terms.ffd.filter='random'", "distillation.terms.rgd.shuffled=true")
    limit = "distillation.limit=0.01"
    recipe = load_recipe(str(tiny_recipe), ("teacher.optimization.steps=60", *controls, limit))
    teacher = tmp_path / "teacher"
    if distilling:
        train(tiny_dataset, recipe, "teacher", RunOptions(teacher, device="cpu"))

    def run(options: RunOptions) -> None:
        if distilling:
            distil(tiny_dataset, str(teacher / "model"), recipe, options)
        else:
            train(tiny_dataset, recipe, "student", options)

    whole = RunOptions(tmp_path / "whole", device="cpu")
    run(whole)
    seen: list[Event] = []
    cut = RunOptions(
        tmp_path / "cut",
        device="cpu",
        on_event=seen.append,
        cancelled=lambda: any(event.phase == "train" and event.done == 4 for event in seen),
    )
    with pytest.raises(Cancelled, match="after step 4 of 6; continue with --resume"):
        run(cut)
    assert not (cut.output / "model").exists()
    run(RunOptions(cut.output, device="cpu", resume=True))
    assert same(weights(whole.output), weights(cut.output))

    def rows(folder: Path) -> list[dict[str, float]]:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]

    assert rows(whole.output) == rows(cut.output)
    if distilling:
        assert 0 < rows(whole.output)[-1]["distillation/factor"] < 1


def test_distillation_adds_nothing_to_the_student(tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ("teacher.optimization.steps=60",))
    train(tiny_dataset, recipe, "teacher", RunOptions(tmp_path / "teacher", device="cpu"))
    train(tiny_dataset, recipe, "student", RunOptions(tmp_path / "alone", device="cpu"))
    package = distil(tiny_dataset, str(tmp_path / "teacher/model"), recipe, RunOptions(tmp_path / "mskd", device="cpu"))
    alone, distilled = weights(tmp_path / "alone"), weights(tmp_path / "mskd")
    assert {name: tensor.shape for name, tensor in alone.items()} == {n: t.shape for n, t in distilled.items()}
    assert not same(alone, distilled)
    assert package.manifest.provenance.method == "ffd+kd+rgd"
    assert package.manifest.provenance.teacher_fingerprint == open_package(tmp_path / "teacher/model").fingerprint
    row = json.loads((tmp_path / "mskd/metrics.jsonl").read_text().splitlines()[-1])
    assert all(row[f"loss/{term}"] > 0 for term in ("dice", "ce", "kd", "ffd", "rgd"))


def test_a_teacher_at_chance_level_is_refused(tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ("teacher.optimization.steps=1",))
    train(tiny_dataset, recipe, "teacher", RunOptions(tmp_path / "teacher", device="cpu"))
    with pytest.raises(SettingsError, match="at chance level and has nothing to teach"):
        distil(tiny_dataset, str(tmp_path / "teacher/model"), recipe, RunOptions(tmp_path / "out", device="cpu"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cache"}


@pytest.mark.parametrize(
    ("edit", "override", "sentence"),
    [
        ({"0": "background", "1": "dark", "2": "bright"}, "name=tiny", r"segments \['bright', 'dark'\], the student"),
        (None, "input.orientation=RAS", "trained with orientation LPS, the recipe asks for RAS"),
        (None, "input.spacing=[1.0, 1.0, 2.0]", "trained with spacing"),
    ],
)
def test_a_teacher_of_another_task_is_refused(
    tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path, edit: dict | None, override: str, sentence: str
) -> None:
    recipe = load_recipe(str(tiny_recipe), ("teacher.optimization.steps=1",))
    train(tiny_dataset, recipe, "teacher", RunOptions(tmp_path / "teacher", device="cpu"))
    if edit is not None:
        path = tiny_dataset / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "labels": edit}))
    other = load_recipe(str(tiny_recipe), (override,))
    with pytest.raises(SettingsError, match=sentence):
        distil(tiny_dataset, str(tmp_path / "teacher/model"), other, RunOptions(tmp_path / "out", device="cpu"))


def test_a_folder_is_never_overwritten_unasked(tiny_dataset: Path, tiny_recipe: Path, options: RunOptions) -> None:
    recipe = load_recipe(str(tiny_recipe))
    options.output.mkdir()
    (options.output / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="not empty, and was left as it is"):
        train(tiny_dataset, recipe, "student", options)
    for wish in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(SettingsError, match="not a run's folder, so nothing in it was touched"):
            train(tiny_dataset, recipe, "student", replace(options, **wish))
    (options.output / "settings.json").write_text('{"editor": "someone else\'s"}')
    with pytest.raises(SettingsError, match="not a run's folder"):
        train(tiny_dataset, recipe, "student", replace(options, overwrite=True))
    with pytest.raises(SettingsError, match="give one of the two"):
        train(tiny_dataset, recipe, "student", replace(options, overwrite=True, resume=True))
    assert (options.output / "thesis.txt").read_text() == "mine"


def test_overwriting_replaces_the_run_and_nothing_else(
    tiny_dataset: Path, tiny_recipe: Path, options: RunOptions
) -> None:
    recipe = load_recipe(str(tiny_recipe))
    train(tiny_dataset, recipe, "student", options)
    (options.output / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match=r"--overwrite would remove .*model, which this run reads"):
        distil(tiny_dataset, str(options.output / "model"), recipe, replace(options, overwrite=True))
    other = load_recipe(str(tiny_recipe), ("seed=1", "student.optimization.validate_every=6"))
    train(tiny_dataset, other, "student", replace(options, overwrite=True))
    assert (options.output / "notes.txt").read_text() == "mine"
    assert json.loads((options.output / "settings.json").read_text())["recipe"]["seed"] == 1
    assert {path.name for path in (options.output / "checkpoints").iterdir()} == {"best.pt", "step-00000006.pt"}


def test_resuming_before_the_first_checkpoint_saves_the_settings_it_runs_with(
    tiny_dataset: Path, tiny_recipe: Path, options: RunOptions
) -> None:
    train(tiny_dataset, load_recipe(str(tiny_recipe)), "student", options)
    for path in (options.output / "checkpoints").iterdir():
        path.unlink()
    train(tiny_dataset, load_recipe(str(tiny_recipe), ("seed=1",)), "student", replace(options, resume=True))
    assert json.loads((options.output / "settings.json").read_text())["recipe"]["seed"] == 1


def test_a_package_that_could_not_be_written_is_refused_before_training(
    tiny_dataset: Path, tiny_recipe: Path, options: RunOptions
) -> None:
    recipe = load_recipe(str(tiny_recipe), ('package.largest_component=["nothing"]',))
    with pytest.raises(SettingsError, match=r"largest_component names \['nothing'\], which are not labels"):
        train(tiny_dataset, recipe, "student", options)
    assert {path.name for path in options.output.glob("*")} <= {"cache"}


def test_a_place_that_cannot_hold_a_run_is_refused_before_the_data_are_read(
    tiny_dataset: Path, tiny_recipe: Path, options: RunOptions
) -> None:
    options.output.write_text("a file")
    for output in (options.output, options.output / "below"):
        with pytest.raises(SettingsError, match="is not a folder; choose another place"):
            train(tiny_dataset, load_recipe(str(tiny_recipe)), "student", RunOptions(output, on_event=pytest.fail))
    assert options.output.read_text() == "a file"


def test_resuming_with_other_settings_is_refused(tiny_dataset: Path, tiny_recipe: Path, options: RunOptions) -> None:
    train(tiny_dataset, load_recipe(str(tiny_recipe)), "student", options)
    other = load_recipe(str(tiny_recipe), ("seed=1",))
    with pytest.raises(SettingsError, match="other settings or other data"):
        train(tiny_dataset, other, "student", replace(options, resume=True))


def test_a_faulty_case_leaves_no_run_behind(tiny_dataset: Path, tiny_recipe: Path, options: RunOptions) -> None:
    (tiny_dataset / "imagesTr/case_3.nii.gz").write_bytes(b"not an image")
    with pytest.raises(InputError, match="case_3"):
        train(tiny_dataset, load_recipe(str(tiny_recipe)), "student", options)
    assert {path.name for path in options.output.glob("*")} <= {"cache"}
    (tiny_dataset / "imagesTr/case_3.nii.gz").write_bytes((tiny_dataset / "imagesTr/case_4.nii.gz").read_bytes())
    train(tiny_dataset, load_recipe(str(tiny_recipe)), "student", options)


def test_a_faulty_case_is_left_out_and_listed_where_the_recipe_allows_it(
    tiny_dataset: Path, tiny_recipe: Path, options: RunOptions
) -> None:
    recipe = load_recipe(str(tiny_recipe), ("data.bad_cases=skip",))
    split = split_cases(open_dataset(tiny_dataset), 0, 0.2, 0.2)
    (tiny_dataset / f"imagesTr/{split.train[0]}.nii.gz").write_bytes(b"not an image")
    package = train(tiny_dataset, recipe, "student", options)
    problems = [json.loads(line) for line in (options.output / "problems.jsonl").read_text().splitlines()]
    assert [problem["case"] for problem in problems] == [split.train[0]]
    assert f"{split.train[0]}.nii.gz" in problems[0]["reason"]
    assert package.manifest.provenance.data == "tiny: 5 training and 2 validation cases"


def test_runs_share_a_cache(tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe, cache = load_recipe(str(tiny_recipe)), tmp_path / "cache"
    before = {path: path.stat().st_mtime_ns for path in tiny_dataset.rglob("*")}
    train(tiny_dataset, recipe, "student", RunOptions(tmp_path / "first", device="cpu", cache=cache))
    entries = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    train(tiny_dataset, recipe, "student", RunOptions(tmp_path / "second", device="cpu", cache=cache))
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == entries
    assert not (tmp_path / "second/cache").exists()
    assert {path: path.stat().st_mtime_ns for path in tiny_dataset.rglob("*")} == before  # nothing is written there


@pytest.mark.parametrize("dim", [2])
def test_a_slice_wise_network_trains_and_distils(
    tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path, dim: int
) -> None:
    overrides = ("input.patch=[16, 16]", "input.spacing=[0, 1.0, 1.0]", "teacher.optimization.steps=60")
    recipe = load_recipe(str(tiny_recipe), overrides)
    teacher = train(tiny_dataset, recipe, "teacher", RunOptions(tmp_path / "teacher", device="cpu"))
    package = distil(tiny_dataset, str(teacher.path), recipe, RunOptions(tmp_path / "student", device="cpu"))
    assert package.manifest.dim == dim
    assert package.manifest.spacing == (None, 1.0, 1.0)


def test_unlabelled_cases_are_taught_by_the_teacher(tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    path = tiny_dataset / "dataset.json"
    description = json.loads(path.read_text())
    extra = [entry["image"] for entry in description["training"][8:]]
    path.write_text(json.dumps({**description, "training": description["training"][:8], "test": extra}))
    recipe = load_recipe(str(tiny_recipe), ("teacher.optimization.steps=60", "student.optimization.unlabelled=0.5"))
    teacher = train(tiny_dataset, recipe, "teacher", RunOptions(tmp_path / "teacher", device="cpu"))
    distil(tiny_dataset, str(teacher.path), recipe, RunOptions(tmp_path / "student", device="cpu"))
    rows = [json.loads(line) for line in (tmp_path / "student/metrics.jsonl").read_text().splitlines()]
    assert all(row["loss/kd"] > 0 for row in rows)
    # The labels are averaged over the steps that have some; where none has, there is no such column.
    alone = load_recipe(str(tiny_recipe), ("teacher.optimization.steps=60", "student.optimization.unlabelled=1.0"))
    distil(tiny_dataset, str(teacher.path), alone, RunOptions(tmp_path / "taught", device="cpu"))
    taught = [json.loads(line) for line in (tmp_path / "taught/metrics.jsonl").read_text().splitlines()]
    assert all("loss/dice" not in row and row["loss/kd"] > 0 for row in taught)
    assert 0.5 < rows[0]["loss/dice"] < 1
