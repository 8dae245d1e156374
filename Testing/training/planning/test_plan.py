"""Whole plans: complete, repeatable, made of training cases alone, obedient to the draft, and trainable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mskd.data import Split, open_dataset
from mskd.errors import Cancelled, InputError, SettingsError
from mskd.events import Event
from mskd.networks import build_network
from mskd.training.draft import Draft, load_draft
from mskd.training.planning import Plan, complete
from mskd.training.planning.budget import choose_budget
from mskd.training.planning.cost import network_cost
from mskd.training.planning.grid import FEWEST_VOXELS, coarser, smallest_label
from mskd.training.run import RunOptions, network_spec, train
from mskd.training.settings import Recipe, load_recipe


def generic(*overrides: str) -> Draft:
    draft = load_draft("generic", overrides)
    assert isinstance(draft, Draft)
    return draft


def plan(folder: Path, *overrides: str) -> tuple[Recipe, Plan]:
    recipe, found = complete(generic(*overrides), open_dataset(folder))
    assert found is not None
    return recipe, found


def test_every_value_has_its_reason_and_the_written_recipe_is_the_same(tiny_dataset: Path, tmp_path: Path) -> None:
    recipe, found = plan(tiny_dataset)
    assert found.values.keys() == found.reasons.keys()
    assert recipe.input.patch == (12, 14, 16)
    assert recipe.input.normalization.name == "clip_zscore"
    path = tmp_path / "written.toml"
    path.write_text(found.as_toml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert f"# {found.reasons['split.test']}" in path.read_text(encoding="utf-8")
    found.save(tmp_path / "plan.json")
    assert Plan.model_validate_json((tmp_path / "plan.json").read_text()) == found


def test_only_training_cases_decide(tiny_dataset: Path, tmp_path: Path) -> None:
    recipe, found = plan(tiny_dataset)
    training = {case.id for case in found.fingerprint.cases}
    assert 0 < len(training) < 10
    for case in open_dataset(tiny_dataset).cases:
        if case.id not in training:
            case.images[0].write_bytes(b"not an image")
    assert plan(tiny_dataset) == (recipe, found)
    split = Split(seed=0, train=tuple(sorted(training))[:2], validation=(), test=())
    split.save(tmp_path / "split.json")
    _, other = complete(generic(), open_dataset(tiny_dataset), split_file=tmp_path / "split.json")
    assert other is not None
    assert [case.id for case in other.fingerprint.cases] == list(split.train)


def test_a_complete_recipe_reads_no_case(
    tiny_dataset: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mskd.training.planning.plan.measure_cases", pytest.fail)
    recipe = load_recipe(str(tiny_recipe))
    assert complete(recipe, open_dataset(tiny_dataset)) == (recipe, None)


def test_what_the_draft_says_stands_and_the_rest_follows(tiny_dataset: Path) -> None:
    recipe, found = plan(
        tiny_dataset,
        "input.spacing=[2.0, 1.0, 1.0]",
        "student.arguments={channels=[3, 5, 7], norm='instance'}",
        "student.optimization.batch=5",
        "augmentation.mirror=['z']",
        "split.test=0.3",
    )
    assert recipe.input.spacing == (2.0, 1.0, 1.0)
    assert recipe.student.arguments["channels"] == [3, 5, 7]
    assert recipe.student.arguments["norm"] == "instance"
    assert len(recipe.student.arguments["strides"]) == 3
    assert recipe.student.optimization.batch == 5
    assert recipe.augmentation.mirror == ("z",)
    assert len(found.fingerprint.cases) <= 7
    assert not {"input.spacing", "student.arguments.channels", "augmentation.mirror"} & found.values.keys()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("student.arguments={channls=[3, 5]}", "did you mean 'channels'"),
        ("student.arguments={channels='wide'}", "channels"),
        ("student.arguments={channels=[3, 5, 7], strides=[[1, 1, 1]]}", "strides needs 3 entries"),
        ("teacher.arguments={classes=4}", "which the data decide"),
        ("student.network=heavy_unet", "There is no network 'heavy_unet'"),
        ("input.patch=[8, 8]", "set the first spacing .z. to 0"),
    ],
)
def test_drafts_that_no_plan_can_complete_get_a_sentence(tiny_dataset: Path, override: str, sentence: str) -> None:
    extra = ("input.spacing=[1.0, 1.0, 1.0]",) if "patch" in override else ()
    with pytest.raises(SettingsError, match=sentence):
        plan(tiny_dataset, override, *extra)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_planned_run_trains_resumes_and_says_what_was_planned(tiny_dataset: Path, tmp_path: Path, dim: int) -> None:
    run = tmp_path / "run"
    draft = generic(f"plan.dim={dim}", "student.optimization.steps=6", "student.optimization.validate_every=3")
    seen: list[Event] = []
    options = RunOptions(run, device="cpu", on_event=seen.append)
    stop = replace(options, cancelled=lambda: any(event.phase == "train" and event.done == 4 for event in seen))
    with pytest.raises(Cancelled):
        train(tiny_dataset, draft, "student", stop)
    train(tiny_dataset, draft, "student", replace(options, resume=True))
    recipe, found = plan(
        tiny_dataset, f"plan.dim={dim}", "student.optimization.steps=6", "student.optimization.validate_every=3"
    )
    assert len(recipe.input.patch) == dim
    settings = json.loads((run / "settings.json").read_text())
    assert settings["recipe"] == recipe.model_dump(mode="json")
    assert settings["recipe_sha256"] == recipe.digest("student", False)
    assert load_recipe(str(run / "recipe.toml")) == recipe
    assert Plan.model_validate_json((run / "plan.json").read_text()) == found
    # The saved recipe resumes the run too; other data would plan another, and are refused.
    train(tiny_dataset, load_draft(str(run / "recipe.toml")), "student", replace(options, resume=True))
    image = open_dataset(tiny_dataset).select([found.fingerprint.cases[0].id])[0].images[0]
    shutil.copy(open_dataset(tiny_dataset).select([found.fingerprint.cases[1].id])[0].images[0], image)
    with pytest.raises((SettingsError, InputError), match="other settings or other data"):
        train(tiny_dataset, draft, "student", replace(options, resume=True))


GRIDS = {
    "hippocampus": ((36, 51, 35), (1.0, 1.0, 1.0)),
    "abdominal MR": ((36, 256, 256), (7.7, 1.25, 1.25)),
    "head and neck": ((119, 120, 72), (2.5, 3.9, 3.9)),
    "abdominal CT": ((148, 512, 512), (3.0, 0.76, 0.76)),
    "whole body": ((900, 512, 512), (1.5, 1.0, 1.0)),
    "sagittal": ((320, 320, 25), (0.6, 0.6, 4.0)),
    "heart": ((9, 216, 256), (10.0, 1.5, 1.5)),
    "single slice": ((1, 600, 800), (1.0, 0.5, 0.5)),
    "tiny": ((5, 6, 4), (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("budget", ["laptop", "gpu", "24GB"])
@pytest.mark.parametrize("name", GRIDS)
def test_plans_keep_to_their_budget(
    name: str, budget: str, fingerprint: Callable, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = fingerprint([GRIDS[name]] * 7, bright=[{}] * 7, dark=[{"millilitres": 2.0}] * 7)
    monkeypatch.setattr("mskd.training.planning.plan.measure_cases", lambda *words, **more: facts)
    recipe, _ = plan(tiny_dataset, f"plan.budget={budget}")
    allowed = choose_budget(budget)
    dim = len(recipe.input.patch)
    few_slices = GRIDS[name][0][0] < 12
    # Slices so thick that they cannot be merged, of which a small budget shows too little.
    too_large = name == "abdominal MR" and budget == "laptop"
    assert dim == (2 if few_slices or too_large else 3)
    for role in ("teacher", "student"):
        settings, limit = recipe.role(role), allowed.role(role)
        spec = network_spec(settings, role, dim, 1, 3)
        network, cost = build_network(spec), network_cost(spec, recipe.input.patch)
        assert all(side % step == 0 for side, step in zip(recipe.input.patch, network.divisor, strict=True))
        batch, steps = settings.optimization.batch, settings.optimization.steps
        assert cost.memory(batch) <= allowed.memory
        assert limit.steps[0] <= steps <= limit.steps[2]
        if limit.work:
            assert 0.3 * limit.work < cost.macs * batch * steps <= 1.1 * limit.work or steps == limit.steps[2]
        assert settings.optimization.validate_every <= steps
    spacing = [side or own for side, own in zip(recipe.input.spacing, _turned(name)[1], strict=True)][3 - dim :]
    shown = np.array(recipe.input.patch) * spacing / (_turned(name)[0] * _turned(name)[1])[3 - dim :]
    as_coarse_as_allowed = smallest_label(facts, coarser(spacing)) < FEWEST_VOXELS
    # A grid less than twice as coarse (in voxels) is not worth its loss of detail, so half of the coverage is enough.
    assert np.prod(np.minimum(1, shown)) >= 0.45 * allowed.coverage or as_coarse_as_allowed


def _turned(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Shape and spacing (z, y, x) once a coarse axis was brought first."""
    order = [2, 0, 1] if name == "sagittal" else [0, 1, 2]
    shape, spacing = map(np.array, GRIDS[name])
    return shape[order], spacing[order]


def test_students_are_light(fingerprint: Callable, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GRIDS:
        facts = fingerprint([GRIDS[name]] * 7, bright=[{}] * 7)
        monkeypatch.setattr("mskd.training.planning.plan.measure_cases", lambda *words, facts=facts, **more: facts)
        recipe, _ = plan(tiny_dataset)
        dim = len(recipe.input.patch)
        costs = [
            network_cost(network_spec(recipe.role(role), role, dim, 1, 3), recipe.input.patch)
            for role in ("student", "teacher")
        ]
        assert costs[0].parameters < 0.7e6
        assert costs[0].macs < costs[1].macs / 2.5


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["Task04_Hippocampus", "CHAOS_T2SPIR", "OpenKBP_HeadNeckCT"])
def test_real_data_sets_are_planned(name: str, real_data_folder: Path) -> None:
    recipe, found = plan(real_data_folder / name)
    assert recipe.input.normalization.name == ("clip_zscore" if "CT" in name else "zscore")
    assert recipe.student.optimization.steps >= 1800
    assert len(found.fingerprint.cases) >= 9
