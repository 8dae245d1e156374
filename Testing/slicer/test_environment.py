"""How the worker is started, in a checkout and installed; and what this module's own code may import."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from MSKDSegmentationLib.environment import KEEP_MEMORY, package_root, worker_command, worker_environment
from MSKDSegmentationLib.errors import SegmentationError

ALLOWED = {"slicer", "vtk", "numpy", "qt", "ctk", "PyTorchUtils", "MSKDSegmentationLib"}


def test_a_checkout_finds_the_package_in_training(root: Path) -> None:
    assert package_root(root / "MSKDSegmentation") == root / "Training"


def test_once_installed_the_package_lies_beside_the_module(root: Path, tmp_path: Path) -> None:
    installed = tmp_path / "lib" / "qt-scripted-modules"
    shutil.copytree(root / "Training" / "mskd", installed / "mskd", ignore=shutil.ignore_patterns("__pycache__"))
    assert package_root(installed) == installed
    code = "import mskd, json; print(json.dumps(mskd.__file__))"
    environment = worker_environment(installed, {**os.environ, "PYTHONPATH": ""})
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, cwd=tmp_path)
    assert Path(json.loads(found.stdout)).parent == installed / "mskd"


def test_a_missing_package_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegmentationError, match="The package mskd is not in"):
        package_root(tmp_path / "module")


def test_the_environment_puts_the_package_first_and_keeps_the_rest(root: Path) -> None:
    environment = worker_environment(root / "MSKDSegmentation", {"PYTHONPATH": "/old", "LD_LIBRARY_PATH": "/slicer"})
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(root / "Training"), "/old"]
    assert environment["LD_LIBRARY_PATH"] == "/slicer"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python learnt it with 3.11; Slicer brings 3.12")
def test_files_of_the_working_folder_are_not_taken_for_modules(root: Path, tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('a file of the user')")
    environment = worker_environment(root / "MSKDSegmentation")
    code = [sys.executable, "-c", "import queue; print(queue.Queue)"]
    subprocess.run(code, cwd=tmp_path, env=environment, check=True, capture_output=True)


@pytest.mark.parametrize(("platform", "tuned"), [("linux", True), ("darwin", False), ("win32", False)])
def test_the_allocator_is_told_to_keep_memory_on_linux(root: Path, monkeypatch, platform: str, tuned: bool) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    environment = worker_environment(root / "MSKDSegmentation", {})
    assert (environment.get("MALLOC_MMAP_THRESHOLD_") == "4294967296") is tuned
    assert (environment.get("MALLOC_TRIM_THRESHOLD_") == "17179869184") is tuned
    assert set(KEEP_MEMORY) == {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}


@pytest.mark.parametrize(
    ("there", "home", "chosen"),
    [
        (["PythonSlicer", "python-real"], "/opt/Slicer/lib/Python", "python-real"),
        (["PythonSlicer", "python-real"], None, "PythonSlicer"),
        (["PythonSlicer"], "/opt/Slicer/lib/Python", "PythonSlicer"),
    ],
)
def test_the_worker_runs_in_slicers_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], home: str | None, chosen: str
) -> None:
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", home) if home else monkeypatch.delenv("PYTHONHOME", raising=False)
    assert worker_command() == [str(tmp_path / chosen), "-m", "mskd.inference.worker"]


def test_packages_of_the_user_stay_out_of_slicers_python(root: Path) -> None:
    inside = worker_environment(root / "MSKDSegmentation", {"PYTHONHOME": "/opt/Slicer/lib/Python"})
    assert inside["PYTHONNOUSERSITE"] == "1"
    assert "PYTHONNOUSERSITE" not in worker_environment(root / "MSKDSegmentation", {})


def test_outside_slicer_it_runs_in_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert worker_command()[0] == sys.executable


def test_the_module_imports_only_what_slicer_has_before_anything_is_installed(root: Path) -> None:
    folder = root / "MSKDSegmentation"
    foreign = set()
    for path in [folder / "MSKDSegmentation.py", *folder.glob("MSKDSegmentationLib/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            foreign |= {(path.name, name) for name in names if name.partition(".")[0] not in ALLOWED}
    assert {entry for entry in foreign if entry[1].partition(".")[0] not in sys.stdlib_module_names} == set()


def test_nothing_heavy_is_loaded_by_the_module(root: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import slicer_doubles; slicer_doubles.install()\n"
        "import MSKDSegmentation\n"
        "print([name for name in ('torch', 'mskd', 'pydantic', 'safetensors', 'SimpleITK') if name in sys.modules])"
    )
    paths = [str(root / "Testing" / "slicer" / "support"), str(root / "MSKDSegmentation")]
    answer = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, encoding="utf-8", check=True)
    assert answer.stdout.strip() == "[]"


def test_slicer_finds_one_module_file(root: Path) -> None:
    assert [path.name for path in (root / "MSKDSegmentation").glob("*.py")] == ["MSKDSegmentation.py"]
