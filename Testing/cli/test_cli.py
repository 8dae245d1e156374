"""The command line as a user meets it: sentences, exit codes, Ctrl-C, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mskd
from mskd.cli import COMMANDS, app, main
from mskd.training.run import RunOptions, train
from mskd.training.settings import load_recipe

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> int:
    """Exit code of a command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def spawn(*arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Training"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mskd", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


@pytest.fixture
def model(tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path) -> Path:
    options = RunOptions(tmp_path / "made", device="cpu")
    return train(tiny_dataset, load_recipe(str(tiny_recipe)), "student", options).path


def test_every_command_helps_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names >= {"segment", "train", "distill", "evaluate", "info", "verify", "models", "demo"}
    assert len(COMMANDS) <= len(names)
    for name in names:
        assert run(name, "--help") == 0
        assert f"mskd {name}" in capsys.readouterr().out, f"{name} --help shows no example"


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == mskd.__version__


def test_train_segment_evaluate(
    tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = ["train", tiny_dataset, "--recipe", tiny_recipe, "--output", folder, "--role", "student"]
    assert run(*arguments, "--device", "cpu", "--set", "student.optimization.steps=4") == 0
    assert json.loads((folder / "settings.json").read_text())["recipe"]["student"]["optimization"]["steps"] == 4
    assert "mskd evaluate" in capsys.readouterr().out
    image, output = tiny_dataset / "imagesTr/case_0.nii.gz", tmp_path / "out.seg.nrrd"
    assert run("segment", image, "--model", folder / "model", "--output", output, "--device", "cpu") == 0
    assert output.is_file()
    assert run("segment", image, "--model", folder / "model", "--output", output) == 2
    table = tmp_path / "table.json"
    split = f"{folder / 'split.json'}:test"
    assert run("evaluate", tiny_dataset, "--model", folder / "model", "--split", split, "--output", table) == 0
    assert len(json.loads(table.read_text())["dataset"]["cases"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["train", "{data}", "--recipe", "nothing", "--output", "{out}"], 2, "There is no recipe 'nothing'"),
        (["train", "{out}", "--recipe", "{recipe}", "--output", "{out}"], 3, "there is no such folder"),
        (["train", "{data}", "--recipe", "{recipe}", "--output", "{out}", "--set", "sed=1"], 2, "did you mean 'seed'"),
        (["distill", "{data}", "--teacher", "x", "--recipe", "{recipe}", "--output", "{out}"], 2, "--teacher x"),
        (["info", "{out}"], 4, "out"),
        (["segment", "{recipe}", "--model", "{model}", "--output", "{out}.nrrd"], 3, "tiny.toml"),
        (["segment"], 2, ""),
        (["train", "{data}/dataset.json", "--recipe", "{recipe}", "--output", "{out}"], 3, "this is a file; give the"),
        (["train", "{data}", "--recipe", "{recipe}", "--output", "{recipe}/x"], 2, "tiny.toml is not a folder"),
        (["evaluate", "{data}", "--model", "x", "--output", "{recipe}/x.json"], 2, "tiny.toml is not a folder"),
        (["evaluate", "{data}", "--model", "x", "--output", "{recipe}"], 2, "ends in .json"),
        (["evaluate", "{data}", "--model", "x", "--output", "{out}/x.json", "--split", "a:b"], 2, "'b' is not a part"),
        (["evaluate", "{data}", "--model", "x", "--output", "{out}/x.json"], 4, "There is no model 'x'"),
    ],
)
def test_faults_end_with_a_sentence_and_their_code(
    arguments: list[str],
    code: int,
    sentence: str,
    tiny_dataset: Path,
    tiny_recipe: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"data": tiny_dataset, "recipe": tiny_recipe, "out": tmp_path / "out"}
    if any("{model}" in word for word in arguments):
        places["model"] = request.getfixturevalue("model")
    assert run(*(word.format(**places) for word in arguments)) == code
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_class_that_is_nowhere_and_a_number_without_a_name(
    tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_dataset / "dataset.json"
    description = json.loads(path.read_text())
    for labels, sentence in (
        ({"0": "background", "1": "bright"}, "voxels have the value 2, which the data set does not name"),
        ({"0": "background", "1": "bright", "2": "dark", "3": "none"}, "'none' (value 3) occurs in none of the 6"),
    ):
        path.write_text(json.dumps({**description, "labels": labels}))
        assert run("train", tiny_dataset, "--recipe", tiny_recipe, "--output", tmp_path / "out", "--device", "cpu") == 3
        assert sentence in capsys.readouterr().err
        assert {path.name for path in (tmp_path / "out").glob("*")} <= {"cache"}


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (OSError(28, "No space left on device", "here"), 3, "here: No space left on device; make room"),
        (MemoryError(), 5, "Out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 5, "Out of memory"),
        (RuntimeError("a bug"), 1, "Unexpected RuntimeError (a bug); please report it"),
        (KeyboardInterrupt(), 130, "Cancelled"),
        (ModuleNotFoundError("", name="monai.losses"), 2, "'monai' is missing; to train and evaluate, install mskd[tr"),
        (ModuleNotFoundError("", name="safetensors"), 2, "'safetensors' is missing; install mskd again"),
    ],
)
def test_whatever_happens_ends_with_a_sentence(
    fault: BaseException, code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("mskd.package.open_package", fail)
    assert run("info", "anything") == code
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_without_the_train_extra_segmenting_works_and_training_names_it(
    tiny_dataset: Path, tiny_recipe: Path, model: Path, tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "for name in ('monai', 'tensorboard', 'matplotlib', 'scipy'): sys.modules[name] = None\n"
        "from mskd.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Training"), "OMP_NUM_THREADS": "1"}

    def bare(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")

    image, output = tiny_dataset / "imagesTr/case_0.nii.gz", tmp_path / "out.nrrd"
    done = bare("segment", image, "--model", model, "--output", output, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert output.is_file()
    done = bare("train", tiny_dataset, "--recipe", tiny_recipe, "--output", tmp_path / "run")
    assert done.returncode == 2
    assert "is missing; to train and evaluate, install mskd[train]." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_stops_training_with_a_sentence(tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from mskd.training import run\n"
        "plain = run.Trainer.fit\n"
        "def fit(*words):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "    return plain(*words)\n"
        "run.Trainer.fit = fit\n"
        "from mskd.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Training"), "OMP_NUM_THREADS": "1"}
    words = ["train", tiny_dataset, "--recipe", tiny_recipe, "--output", tmp_path / "run", "--role", "student"]
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 3, done.stderr
    assert "metrics.jsonl cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", tmp_path / "nothing", "--debug") == 4
    assert "Traceback" in capsys.readouterr().err


def wait_for(process: subprocess.Popen[str], ready: Path, seconds: float = 120) -> None:
    """Until the file is there; the process must still run then."""
    end = time.monotonic() + seconds
    while not ready.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{ready} did not appear"
        time.sleep(0.05)


def test_ctrl_c_in_evaluation_leaves_no_table(tiny_dataset: Path, model: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from mskd.evaluation import run\n"
        "plain = run.read_case\n"
        "def read_case(dataset, case):\n"
        "    if case.id == 'case_2': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return plain(dataset, case)\n"
        "run.read_case = read_case\n"
        "from mskd.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Training"), "OMP_NUM_THREADS": "1"}
    words = ["evaluate", tiny_dataset, "--model", model, "--output", tmp_path / "new" / "table.json"]
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 130, done.stderr
    assert "ancelled" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


def test_ctrl_c_in_training_leaves_a_checkpoint_and_exits_130(
    tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    long = ("--set", "student.optimization.steps=100000", "--set", "student.optimization.validate_every=2")
    arguments = ("train", tiny_dataset, "--recipe", tiny_recipe, "--output", folder, "--role", "student", *long)
    process = spawn(*arguments, "--device", "cpu")
    wait_for(process, folder / "checkpoints" / "best.pt")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "continue with --resume" in said
    assert "Traceback" not in said
    last = sorted((folder / "checkpoints").glob("step-*.pt"))[-1]
    assert f"after step {int(last.stem.removeprefix('step-'))} " in said
    assert not list(folder.rglob("*.partial"))
