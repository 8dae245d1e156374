"""The results block of the README."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from mskd.evaluation.metrics import Scores
from mskd.evaluation.table import Row, Table

SPEC = importlib.util.spec_from_file_location("render", Path(__file__).with_name("render.py"))
render = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(render)


def write(folder, name, dice, cases=("a", "b")):
    about = {
        "model": {"name": "m", "version": "1.0.0", "fingerprint": "0" * 64, "parameters": 12345},
        "dataset": {"name": "Hippocampus", "part": "test", "cases": list(cases)},
    }
    rows = tuple(Row(case, "Anterior", Scores(dice, 1.25, 0.9, 0.0, 0.0)) for case in cases)
    text = json.dumps(Table(rows, ("Anterior",), 1.0, about).as_json())
    (folder / f"{name}.json").write_text(text)


def test_it_renders_one_table_a_group(tmp_path):
    write(tmp_path, "hippocampus.1-teacher", 0.9)
    write(tmp_path, "hippocampus.2-student", 0.8)
    block = render.render(tmp_path)
    assert "Hippocampus: 2 cases (test)" in block
    assert "| student | 12,345 | 0.800 ± 0.000 | 0.800 ± 0.000 | 1.25 ± 0.00 | 0.900 ± 0.000 |" in block
    assert block.index("teacher") < block.index("student")
    lines = [line for line in block.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_a_paired_comparison_states_its_interval_and_verdict(tmp_path):
    write(tmp_path, "hippocampus.1-alone", 0.8)
    write(tmp_path, "hippocampus.2-student", 0.8)
    path = tmp_path / "hippocampus.2-student.json"
    comparison = {
        "against": "1-alone",
        "dice_difference": 0.0012,
        "relative_percent": 0.15,
        "interval_95": [-0.001, 0.003],
        "wilcoxon_p": 0.21,
        "verdict": "no difference",
    }
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"comparison": [comparison]}))
    assert (
        "- student against alone: +0.0012 mean Dice (+0.15 %), 95 % interval -0.0010 to +0.0030, "
        "Wilcoxon p = 0.21: **no difference**." in render.render(tmp_path)
    )


def test_rows_measured_on_other_cases_do_not_share_a_table(tmp_path):
    write(tmp_path, "hippocampus.1-teacher", 0.9)
    write(tmp_path, "hippocampus.2-student", 0.8, cases=("c",))
    with pytest.raises(ValueError, match="same cases"):
        render.render(tmp_path)


def test_nothing_committed_says_so(tmp_path):
    assert render.render(tmp_path) == render.NOTHING


def test_only_the_block_changes():
    text = f"before\n{render.BEGIN}\nold\n{render.END}\nafter"
    assert render.replaced(text, "new") == f"before\n{render.BEGIN}\n\nnew\n\n{render.END}\nafter"
    with pytest.raises(ValueError, match="marks"):
        render.replaced("no marks", "new")


def test_the_readme_shows_the_committed_results():
    assert render.main(["--check"]) == 0
