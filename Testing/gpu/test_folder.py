"""A folder of cases on a GPU, by one process or by several that share its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mskd.image import read_labels, write_volume
from mskd.inference import Engine

CASES = 4


@pytest.mark.parametrize("jobs", [1, 2])
def test_cases_are_divided_and_come_out_as_from_one_engine(
    root: Path, student: Any, phantom: Any, tmp_path: Path, jobs: int
) -> None:
    (tmp_path / "images").mkdir()
    for index in range(CASES):
        write_volume(tmp_path / "images" / f"case{index}.nii.gz", phantom)
    line = [sys.executable, "-m", "mskd", "segment", str(tmp_path / "images"), "--model", str(student.path)]
    line += ["-o", str(tmp_path / "labels"), "--device", "cuda:0", "--report", str(tmp_path / "report.json")]
    line += ["--jobs", str(jobs)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "Training"), *sys.path])}
    done = subprocess.run(line, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    cases = json.loads((tmp_path / "report.json").read_text())["cases"]
    assert len(cases) == CASES
    assert {case["device"] for case in cases} == {"cuda:0"}
    expected = Engine(student, "cuda").run(phantom).labels.array
    for path in sorted((tmp_path / "labels").glob("*.nii.gz")):
        assert np.mean(read_labels(path).array == expected) > 0.995  # backends may be chosen anew
    assert len(list((tmp_path / "labels").glob("*.nii.gz"))) == CASES
