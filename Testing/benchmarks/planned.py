"""Trains what `mskd plan` writes, unedited, and measures it on the test cases: does a planned recipe train well?

    python Testing/benchmarks/planned.py Task04_Hippocampus CHAOS_T2SPIR CHAOS_T2SPIR:2 --runs runs

For each data set (``:2`` and ``:3`` fix the dimension): plan, train the student alone (or the teacher, or with it the
distilled student), evaluate. A step whose output is there already is skipped. Writes
``results/planned/NAME.ROLE.json``: the table of `mskd evaluate`, the resolved recipe, hours and machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from hippocampus import mskd

from mskd.package import open_package

RESULTS = Path(__file__).resolve().parent / "results" / "planned"


def prove(dataset: Path, dim: str, runs: Path, role: str) -> dict[str, Any]:
    """Plan, train and evaluate on one data set; the table, and how it was made."""
    run, teacher = (runs / f"{dataset.name}{dim}-{one}" for one in (role, "teacher"))
    recipe, output = run.with_suffix(".toml"), run / "test.json"
    learn = [str(dataset), "--recipe", str(recipe), "--output", str(run)]
    if role == "distilled":
        learn = ["distill", *learn, "--teacher", str(teacher / "model")]
    else:
        learn = ["train", *learn, "--role", role]
    steps = [
        (recipe, ["plan", str(dataset), "--output", str(recipe), *(["--dim", dim] if dim else [])]),
        (run / "model", learn),
        (output, ["evaluate", str(dataset), "--model", str(run / "model")]),
    ]
    steps[-1][1].extend(["--split", f"{run / 'split.json'}:test", "--output", str(output)])
    for made, arguments in steps:
        if not made.exists():
            mskd(arguments)
    table: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    commands = [" ".join(["mskd", *arguments]) for _, arguments in steps]
    for folder in (dataset.parent, runs.parent):  # where they lie here is nobody's business
        commands = [command.replace(f"{folder}/", "") for command in commands]
    table["made_by"] = {
        "commands": commands,
        "recipe": open_package(run / "model").manifest.provenance.recipe,
        "epochs": epochs,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, no GPU",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="folder of a data set, or FOLDER:2 or FOLDER:3")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--role", choices=("student", "teacher", "distilled"), default="student")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for text in options.datasets:
        folder, _, dim = text.partition(":")
        dataset = Path(folder)
        table = prove(dataset, dim, options.runs, options.role)
        name = f"{dataset.name}{'-' + dim + 'd' if dim else ''}.{options.role}.json"
        (RESULTS / name).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
