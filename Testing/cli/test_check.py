"""``mskd check``: what is printed, written and returned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mskd.cli import main

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["check", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.fixture
def broken(tiny_dataset: Path) -> Path:
    path = tiny_dataset / "imagesTr/case_3.nii.gz"
    path.write_bytes(path.read_bytes()[:-500])
    return tiny_dataset


def test_a_sound_set_ends_with_0_and_writes_only_where_told(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run(tiny_dataset) == 0
    said = capsys.readouterr().out
    assert "10 labelled and 0 unlabelled cases" in said
    assert "0 errors" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_ends_with_3_and_everything_is_written(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "check"
    assert run(broken, "--output", output) == 3
    said = capsys.readouterr().out
    assert "case_3" in said
    assert "1 error," in said
    assert {path.name for path in output.iterdir()} == {"check.json", "contact-sheet.png"}
    data = json.loads((output / "check.json").read_text())
    assert (data["schema"], data["schema_version"]) == ("mskd-check", "1.0")
    assert {"mskd", "numpy", "SimpleITK"} <= data["versions"].keys()
    (finding,) = (finding for finding in data["findings"] if finding["severity"] == "error")
    assert (finding["rule"], finding["cases"]) == ("unusable-image", ["case_3"])
    assert [case["id"] for case in data["per_case"]] == [f"case_{index}" for index in range(10)]
    assert data["per_case"][3]["geometry"] is None
    assert data["per_case"][0]["classes"]["1"]["voxels"] == 125
    assert data["summary"]["classes"][0]["cases"] == 9
    assert run(broken, "--output", output) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(broken, "--output", output, "--overwrite") == 3


def test_an_output_that_cannot_be_is_refused_before_anything_is_read(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(broken, "--output", broken / "dataset.json") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_ctrl_c_ends_every_process_with_130_and_writes_nothing(tiny_dataset: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from mskd.data.check import run\n"
        "plain = run._result\n"
        "def result(future, cancelled):\n"
        "    os.killpg(0, signal.SIGINT)\n"  # as a terminal does
        "    return plain(future, cancelled)\n"
        "run._result = result\n"
        "from mskd.cli import main\n"
        "if __name__ == '__main__': main(sys.argv[1:])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Training"), "OMP_NUM_THREADS": "1"}
    words = ["check", tiny_dataset, "--output", tmp_path / "new", "--jobs", "2"]
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", start_new_session=True, timeout=120
    )
    assert done.returncode == 130, done.stderr
    assert "cancelled; nothing was written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
