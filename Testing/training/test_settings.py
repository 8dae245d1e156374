"""Recipes: the bundled ones are valid, faults get a sentence, overrides reach where they point."""

from __future__ import annotations

from pathlib import Path

import pytest

from mskd.errors import SettingsError
from mskd.networks import build_network
from mskd.spec import Label, NetworkSpec
from mskd.training.settings import load_recipe


@pytest.mark.parametrize("name", ["hippocampus", "phantom"])
def test_recipes_that_leave_nothing_to_plan_build_their_networks(name: str) -> None:
    recipe = load_recipe(name)
    decided = {"dim": len(recipe.input.patch), "in_channels": 1, "classes": 3}
    for role in (recipe.teacher, recipe.student):
        build_network(NetworkSpec(name=role.network, arguments={**decided, **role.arguments}))


def test_overrides_are_applied_and_typed(tiny_recipe: Path) -> None:
    recipe = load_recipe(
        str(tiny_recipe),
        (
            "student.optimization.steps=9",
            "augmentation.mirror=['x','y']",
            "name=other",
            "distillation.terms.kd.weight=2",
        ),
    )
    assert (recipe.student.optimization.steps, recipe.name) == (9, "other")
    assert recipe.augmentation.mirror == ("x", "y")
    assert recipe.distillation.term("kd").weight == 2


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("student.optimization.stepps=9", "did you mean 'steps'"),
        ("student.optimization.steps='many'", "'student.optimization.steps' is 'many'"),
        ("augmentation.scale=[0.8]", "augmentation.scale"),
        ("augmentation.scale=[0, 1]", "scale.0' is 0: Input should be greater than 0"),
        ("augmentation.scale=[1.2, 0.8]", "from the smaller zoom to the larger"),
        ("input.orientation=LRS", "one letter of each pair"),
        ("input.patch=[4096, 8, 8]", "less than or equal to 1024"),
        ("seed=-1", "greater than or equal to 0"),
        ("seed=nan", "valid integer"),
        ("seed=1979-05-27", "values that JSON cannot express"),
        ("package.title=''", "at least 1 character"),
        ("a.b=1", r"Unknown key 'a' \(known: .*\)\.$"),
        ("sed=1", r"did you mean 'seed'\?$"),
        ("steps", "write it as key=value"),
        ("name.first=1", "'name' is a value, not a section"),
        ("distillation.terms.kdd={}", "did you mean 'kd'"),
        ("distillation.terms.ffd.gama=1.0", "did you mean 'gamma'"),
        ("input.patch=[8, 8]", "set the first spacing .z. to 0"),
        ("split.folds=1", "one fold would validate on all it trains on"),
        ("split={folds=3, fold=3}", "fold counts from 0 and must be below folds, which is 3"),
        ("split.fold=1", "must be below folds, which is 0"),
        ("plan.budget='8 GB'", "plan.budget"),
    ],
)
def test_wrong_settings_get_a_sentence(tiny_recipe: Path, override: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load_recipe(str(tiny_recipe), (override,))


def test_a_missing_or_broken_recipe_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no recipe 'hipocampus'.*'hippocampus'"):
        load_recipe("hipocampus")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(SettingsError, match="not readable TOML"):
        load_recipe(str(tmp_path / "broken.toml"))


def test_labels_take_colours_and_codes(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ("labels.b.color=[1, 2, 3]",))
    labels = tuple(Label(value=value, name=name, color=(9, 9, 9)) for value, name in ((1, "a"), (2, "b")))
    assert [label.color for label in recipe.style(labels)] == [(9, 9, 9), (1, 2, 3)]
    with pytest.raises(SettingsError, match="styles 'b'"):
        recipe.style(labels[:1])


def test_the_digest_knows_what_decides_the_weights(tiny_recipe: Path) -> None:
    def digest(*overrides: str, distilling: bool = False) -> str:
        return load_recipe(str(tiny_recipe), overrides).digest("student", distilling)

    assert digest() == digest("package.title=Other") == digest("teacher.optimization.steps=1")
    assert digest() == digest("distillation.ramp=0.5")
    assert digest(distilling=True) != digest("distillation.ramp=0.5", distilling=True)
    assert digest() != digest("student.optimization.steps=7")
    assert digest() != digest("augmentation.rotation=1.0")
