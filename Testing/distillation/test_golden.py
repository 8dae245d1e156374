"""The losses against golden numbers, which an independent oracle wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from golden_cases import cases, expected, volume

from mskd.distillation import METHODS, DistillationSettings, Outputs
from mskd.distillation.context import Context
from mskd.distillation.outputs import Shapes

CASES = cases()
GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())


def measured(case: dict) -> float:
    data = volume(case["dim"], labelled=case["labelled"])
    settings = DistillationSettings(terms={case["method"]: case["term"]}, **case["section"])
    tensors = {
        name: torch.from_numpy(getattr(data, name)) for name in ("student", "teacher", "student_logits", "logits")
    }
    student = Outputs(tensors["student_logits"], (tensors["student"],))
    teacher = Outputs(tensors["logits"], (tensors["teacher"],))
    context = Context(
        teacher, torch.from_numpy(data.labels), strides=(data.strides,), mode=settings.regions, n_min=settings.n_min
    )
    shapes = Shapes(case["dim"], 3, (4,), (5,))
    method = METHODS[case["method"]](settings.term(case["method"]), shapes)
    return method(student, teacher, context).item()


def test_every_case_has_its_number():
    assert GOLDEN.keys() == CASES.keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_loss_equals_the_golden_number(name):
    assert measured(CASES[name]) == pytest.approx(GOLDEN[name], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in sorted(CASES) if "2d" in name])
def test_the_oracle_still_says_so(name):
    assert expected(CASES[name]) == pytest.approx(GOLDEN[name], rel=1e-9, abs=1e-12)
