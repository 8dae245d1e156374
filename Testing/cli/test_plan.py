"""``mskd plan`` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mskd.cli import main
from mskd.training.settings import load_recipe


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_a_plan_is_written_once_and_trains(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.toml"
    assert run("plan", tiny_dataset, "--output", path, "--dim", 2, "--set", "student.optimization.steps=2") == 0
    assert "values planned from" in capsys.readouterr().out
    assert len(load_recipe(str(path)).input.patch) == 2
    written = path.read_text()
    assert run("plan", tiny_dataset, "--output", path) == 2
    assert "exists already and was kept" in capsys.readouterr().err
    assert path.read_text() == written
    folder = tmp_path / "run"
    assert run("train", tiny_dataset, "--recipe", path, "--role", "student", "--output", folder, "--device", "cpu") == 0
    assert not (folder / "plan.json").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--dim", 4), "--dim"),
        (("--budget", "cluster"), "'plan.budget' is 'cluster'"),
        (("--set", "sed=1"), "did you mean 'seed'"),
        (("--split", "nowhere.json"), "nowhere.json: no readable split"),
    ],
)
def test_wrong_wishes_get_a_sentence(
    tiny_dataset: Path, tmp_path: Path, words: tuple, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", tiny_dataset, "--output", tmp_path / "out.toml", *words) in (2, 3)
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out.toml").exists()


def test_a_complete_recipe_leaves_nothing_to_plan(
    tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", tiny_dataset, "--output", tmp_path / "out.toml", "--recipe", tiny_recipe) == 0
    assert "leaves nothing to plan" in capsys.readouterr().out
    assert not (tmp_path / "out.toml").exists()
