"""A written recipe is read as the one it was written from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mskd.training.planning.write import recipe_toml
from mskd.training.settings import load_recipe


@pytest.mark.parametrize("name", ["hippocampus", "phantom"])
def test_complete_recipes_come_back(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "written.toml"
    path.write_text(recipe_toml(recipe, {}, "by a test"), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_awkward_words_come_back_and_reasons_stand_above(tiny_recipe: Path, tmp_path: Path) -> None:
    words = 'a "quoted" \\ back\tslash\nand ü 😀 \x7f'
    recipe = load_recipe(str(tiny_recipe))
    package = recipe.package.model_copy(update={"description": words})
    styles = {"left kidney.x": {"color": [1, 2, 3]}, "ü": {"color": [4, 5, 6]}}
    data = {**recipe.model_dump(mode="json", exclude_none=True), "labels": styles, "package": package.model_dump()}
    recipe = type(recipe).model_validate_json(json.dumps(data))
    reasons = {"input.patch": "a reason " * 40 + "that ends\nand goes on", "teacher": "why this one"}
    text = recipe_toml(recipe, reasons, "head\nline")
    path = tmp_path / "written.toml"
    path.write_text(text, encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    lines = text.splitlines()
    assert lines[:2] == ["# head", "# line"]
    assert lines[lines.index("patch = [16, 16, 16]") - 1] == "# and goes on"
    assert lines[lines.index("[teacher]") - 1] == "# why this one"
    assert max(map(len, lines)) < 400
