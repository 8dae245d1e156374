"""The floors: a module imports only from above its own line, and what the worker needs stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

# From the ground up. Names on one line may not import one another.
FLOORS = (
    ("errors",),
    ("spec", "files", "ranks"),
    ("events", "registry"),
    ("image",),
    ("networks",),
    ("package",),
    ("inference",),
    # Here ends what the worker needs.
    ("batch", "export"),
    ("teachers",),
    ("data",),
    ("distillation",),
    ("evaluation",),
    ("training",),
    ("report",),
    ("benchmark",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
WORKER_TOP = LEVEL["inference"]
WORKER_LIBRARIES = {"mskd", "torch", "numpy", "SimpleITK", "safetensors", "pydantic"}
CLUSTER_LIBRARIES = {"distributed"}
# Packages that a backend may use where they are installed; HEAVY sees to it that nothing loads them before.
RUNTIMES = {"openvino", "onnxruntime"}
# Packages that do what the standard library does, faster, where they are installed.
FASTER = {"isal"}
COMMAND_LINE_LIBRARIES = {"typer", "rich", "click"}
HEAVY = (
    "monai",
    "nnunetv2",
    "tensorboard",
    "matplotlib",
    "scipy",
    "openvino",
    "onnxruntime",
    "onnx",
    "nncf",
    "typer",
    "rich",
    "distributed",
    "mskd.batch",
    "mskd.export",
    "mskd.teachers",
    "mskd.data",
    "mskd.distillation",
    "mskd.training",
    "mskd.evaluation",
    "mskd.report",
    "mskd.cli",
)


def modules(root: Path) -> list[Path]:
    return sorted((root / "Training" / "mskd").rglob("*.py"))


def floor_of(root: Path, path: Path) -> str | None:
    """The name on the floor list; None for the package itself, which belongs to no floor."""
    name = path.relative_to(root / "Training" / "mskd").parts[0].removesuffix(".py")
    return None if name == "__init__" else name


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its floor; write it in full"
            module = node.module or ""
            names.update(f"mskd.{alias.name}" for alias in node.names) if module == "mskd" else names.add(module)
    return names


def test_every_module_has_a_floor(root: Path) -> None:
    assert {floor_of(root, path) for path in modules(root)} - {None} <= set(LEVEL)


def test_imports_come_from_above(root: Path) -> None:
    wrong = []
    for path in modules(root):
        own = floor_of(root, path)
        for name in imported(path):
            target = name.split(".")[1] if name.startswith("mskd.") else ""
            if own and target in LEVEL and target != own and LEVEL[target] >= LEVEL[own]:
                wrong.append(f"{path.relative_to(root)} imports {name}")
            if own is None and target:
                wrong.append(f"{path.relative_to(root)} must import nothing of mskd, and imports {name}")
    assert not wrong


def test_what_the_worker_needs_uses_few_libraries(root: Path) -> None:
    allowed = WORKER_LIBRARIES | FASTER | set(sys.stdlib_module_names)
    wrong = [
        f"{path.relative_to(root)} imports {name}"
        for path in modules(root)
        if LEVEL.get(floor_of(root, path) or "errors", 0) <= WORKER_TOP
        for name in imported(path)
        if name.split(".")[0] not in allowed | (RUNTIMES if path.parent.name == "backends" else set())
    ]
    assert not wrong


def test_a_folder_needs_one_library_more_at_most(root: Path) -> None:
    allowed = WORKER_LIBRARIES | CLUSTER_LIBRARIES | set(sys.stdlib_module_names)
    files = [path for path in modules(root) if floor_of(root, path) == "batch"]
    assert files
    assert {name.split(".")[0] for path in files for name in imported(path)} <= allowed


def test_only_the_command_line_draws_on_terminals(root: Path) -> None:
    wrong = [
        f"{path.relative_to(root)} imports {name}"
        for path in modules(root)
        if floor_of(root, path) != "cli"
        for name in imported(path)
        if name.split(".")[0] in COMMAND_LINE_LIBRARIES
    ]
    assert not wrong


def test_the_worker_loads_nothing_heavy(root: Path) -> None:
    code = (
        "import sys, mskd.inference.worker\n"
        "from mskd.inference.backends import BACKENDS\nBACKENDS.names()\n"
        "from mskd.networks import NETWORKS\nNETWORKS.names()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "Training")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_the_check_can_fail(tmp_path: Path) -> None:
    package = tmp_path / "Training" / "mskd"
    (package / "image").mkdir(parents=True)
    (package / "image" / "read.py").write_text("def f():\n    from mskd.inference import Engine\n")
    with pytest.raises(AssertionError, match=r"imports mskd\.inference"):
        test_imports_come_from_above(tmp_path)
    (package / "image" / "read.py").write_text("import monai\nimport typer.core\n")
    with pytest.raises(AssertionError, match="imports monai"):
        test_what_the_worker_needs_uses_few_libraries(tmp_path)
    with pytest.raises(AssertionError, match=r"imports typer\.core"):
        test_only_the_command_line_draws_on_terminals(tmp_path)
