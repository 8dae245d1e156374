"""Drafts: what is there is checked at once, what is missing is filled in, and the draft's own values stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mskd.errors import SettingsError
from mskd.training.draft import Draft, load_draft
from mskd.training.settings import Recipe, load_recipe

PLANNED = {
    "name": "planned",
    "input.spacing": [1.0, 1.0, 1.0],
    "input.normalization": {"name": "zscore"},
    "input.patch": [8, 8, 8],
    "teacher.network": "residual_unet",
    "teacher.arguments.channels": [4, 8],
    "teacher.optimization.steps": 10,
    "student.network": "light_unet",
    "student.arguments.channels": [2, 4],
    "student.optimization.steps": 10,
    "distillation.terms": {"kd": {"weight": 0.2}, "ffd": {}},
    "package.title": "Planned",
}


def draft(tmp_path: Path, text: str, *overrides: str) -> Recipe | Draft:
    path = tmp_path / "draft.toml"
    path.write_text(text)
    return load_draft(str(path), overrides)


def test_a_complete_recipe_is_no_draft(tiny_recipe: Path) -> None:
    assert load_draft(str(tiny_recipe), ("seed=3",)) == load_recipe(str(tiny_recipe), ("seed=3",))


def test_the_draft_s_own_values_stand(tmp_path: Path) -> None:
    text = """
    [input]
    patch = [16, 16, 16]
    [student]
    arguments = { norm = "instance" }
    optimization = { steps = 7 }
    [distillation]
    terms = { rgd = {} }
    """
    found = draft(tmp_path, text, "teacher.optimization.batch=3")
    assert isinstance(found, Draft)
    assert (found.get("input.patch"), found.get("input.spacing"), found.get("name.x")) == ([16, 16, 16], None, None)
    recipe = found.complete(PLANNED)
    assert recipe.input.patch == (16, 16, 16)
    assert recipe.student.arguments == {"norm": "instance", "channels": [2, 4]}
    assert recipe.student.optimization.steps == 7
    assert (recipe.teacher.optimization.batch, recipe.teacher.optimization.steps) == (3, 10)
    assert list(recipe.distillation.terms) == ["rgd"]
    assert found.get("student.arguments") == {"norm": "instance"}  # the draft is as it was


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("student.optimization.stepps=9", "did you mean 'steps'"),
        ("student.optimization.steps='many'", "'student.optimization.steps' is 'many'"),
        ("sed=1", r"did you mean 'seed'\?$"),
        ("distillation.terms.kdd={}", "did you mean 'kd'"),
    ],
)
def test_faults_of_a_draft_are_found_before_anything_is_planned(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        draft(tmp_path, "seed = 1", override)


def test_a_plan_that_leaves_something_out_is_refused(tmp_path: Path) -> None:
    found = draft(tmp_path, "seed = 1")
    assert isinstance(found, Draft)
    with pytest.raises(SettingsError, match=r"'input\.patch' is missing"):
        found.complete({key: value for key, value in PLANNED.items() if key != "input.patch"})
