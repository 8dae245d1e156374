"""What the README and the contributing guide tell people to type exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import typer.main

DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def code_lines(root, document):
    """Lines of fenced blocks."""
    blocks = re.findall(r"^```\n(.*?)^```", (root / document).read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def outside_make():
    """The environment without what a surrounding ``make test`` hands down."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


def mskd_commands(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    lines = [*code_lines(root, "README.md"), *re.findall(r"`(mskd [^`]+)`", text)]
    return [line.split() for line in lines if line.startswith("mskd ")]


def test_every_mskd_command_and_option_in_the_readme_exists(root):
    from mskd.cli import app

    known = typer.main.get_command(app).commands
    shown = mskd_commands(root)
    assert {words[1] for words in shown} >= {"segment", "train", "distill", "evaluate", "info", "verify", "models"}
    for words in shown:
        assert words[1] in known, words
        options = {option for parameter in known[words[1]].params for option in parameter.opts}
        for word in words[2:]:
            if word.startswith("--"):
                assert word.split("=")[0] in options, words


def test_every_make_target_shown_exists(root):
    rules = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.M))
    shown = {
        line.split()[1] for document in DOCUMENTS for line in code_lines(root, document) if line.startswith("make ")
    }
    assert {"demo", "test"} <= shown <= rules


def test_the_ci_runs_the_command_of_the_readme(root):
    commands = [line.strip() for line in (root / ".ci/run").read_text(encoding="utf-8").splitlines()]
    assert commands[-1] == "make test"
    assert "set -euo pipefail" in commands
    assert (root / ".ci/run").stat().st_mode & 0o100
    assert "make test" in code_lines(root, "README.md")


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(root, document):
    links = re.findall(r"\]\(([^)#]+)\)", (root / document).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (root / link).exists()] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_says_what_is_missing(root, tmp_path):
    def says(*variables):
        done = subprocess.run(
            ["make", "demo", f"VENV={tmp_path}/venv", *variables],
            cwd=root,
            capture_output=True,
            encoding="utf-8",
            check=False,
            env=outside_make(),
        )
        assert done.returncode != 0
        return done.stdout + done.stderr

    assert "Python 3.10 to 3.13 is needed" in says("PYTHON=")
    assert "does not run, or is not Python 3.10 to 3.13" in says("PYTHON=/nowhere/python3.9")
    assert not (tmp_path / "venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_installs_the_chosen_torch_first_and_again_only_when_something_changed(root, tmp_path):
    def plan(*variables):
        command = ["make", "--dry-run", "test", f"VENV={tmp_path}", *variables]
        done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=True, env=outside_make())
        return done.stdout.splitlines()

    lines = plan("TORCH=torch==2.8.0")
    installs = [line for line in lines if " -m pip " in line]
    assert '"torch==2.8.0"' in installs[0]
    assert "[test]" in installs[1]
    for stamp in (re.search(r"touch (\S+)", line) for line in lines):
        if stamp:
            (tmp_path / stamp[1].rsplit("/", 1)[1]).touch()
    assert not any(" -m pip " in line for line in plan("TORCH=torch==2.8.0"))
    assert any(" -m pip " in line for line in plan("TORCH=torch==2.13.0"))
