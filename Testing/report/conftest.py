"""Runs to report on, of a data set whose names would like to be HTML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mskd.training.run import RunOptions, train
from mskd.training.settings import load_recipe

CASE = '<script>alert("case")<script>'
LABEL = "<img src=x onerror=alert(1)> $\\frac{"


@pytest.fixture
def hostile_dataset(tiny_dataset: Path) -> Path:
    """The tiny data set, its cases and one label renamed."""
    path = tiny_dataset / "dataset.json"
    text = path.read_text(encoding="utf-8").replace("dark", json.dumps(LABEL)[1:-1])
    path.write_text(text.replace("/case_", "/" + json.dumps(CASE)[1:-1] + "_"), encoding="utf-8")
    for file in [*tiny_dataset.rglob("case_*")]:
        file.rename(file.with_name(file.name.replace("case", CASE)))
    return tiny_dataset


@pytest.fixture
def run(hostile_dataset: Path, tiny_recipe: Path, tmp_path: Path) -> Path:
    """A finished run: six steps, two validations, two validation cases."""
    options = RunOptions(tmp_path / "run", device="cpu")
    train(hostile_dataset, load_recipe(str(tiny_recipe)), "student", options)
    return options.output
