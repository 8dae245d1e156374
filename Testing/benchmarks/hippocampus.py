"""Trains, distils, measures and bundles the hippocampus model: the whole road on real data, by hand.

    python Testing/benchmarks/hippocampus.py Task04_Hippocampus --runs runs

Three runs of one recipe (teacher; student alone; the same student with MSKD, same budget and seed), each skipped when
its model is there already; then `mskd evaluate` of each on the test cases, which no training read. Writes
``results/hippocampus.*.json`` and ``MSKDSegmentation/Resources/Models/hippocampus-mr``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mskd.evaluation.compare import compare as paired
from mskd.package import open_package, save_package
from mskd.spec import Metric

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
MODEL = ROOT / "MSKDSegmentation" / "Resources" / "Models" / "hippocampus-mr"
RUNS = {
    "1-teacher": ("teacher", "its teacher"),
    "2-student-alone": ("alone", "the same network without distillation"),
    "3-student-with-MSKD": ("mskd", "this model"),
}


def command(run: str, dataset: Path, runs: Path) -> list[str]:
    """The `mskd` command that makes a run."""
    tail = [str(dataset), "--recipe", "hippocampus", "--output", str(runs / run)]
    if run == "mskd":
        return ["distill", *tail, "--teacher", str(runs / "teacher" / "model")]
    return ["train", *tail, "--role", "teacher" if run == "teacher" else "student"]


def mskd(arguments: list[str]) -> None:
    """Run one command, and stop here when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Training")}
    subprocess.run([sys.executable, "-m", "mskd", *arguments], env=environment, check=True)


def measure(run: str, dataset: Path, runs: Path) -> dict[str, Any]:
    """What `mskd evaluate` writes of a run's model on the test cases, and how it was made."""
    output = runs / run / "test.json"
    split = f"{runs / 'teacher' / 'split.json'}:test"
    model = str(runs / run / "model")
    mskd(["evaluate", str(dataset), "--model", model, "--split", split, "--output", str(output), "--overwrite"])
    table: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    recipe = open_package(runs / run / "model").manifest.provenance.recipe
    table["made_by"] = {
        "command": " ".join(["mskd", *command(run, Path(dataset.name), Path("runs"))]),
        "seed": recipe["seed"],
        "split_seed": recipe["split"]["seed"],
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, no GPU",
    }
    return table


def case_means(table: dict[str, Any], metric: str) -> np.ndarray:
    """Mean over labels of each case, in the order of the cases."""
    values: dict[str, list[float]] = {}
    for row in table["per_case"]:
        values.setdefault(row["case"], []).append(row[metric])
    return np.array([np.mean(values[case]) for case in table["dataset"]["cases"]])


def compare(ours: dict[str, Any], theirs: dict[str, Any], row: str) -> dict[str, Any]:
    """How ours differs from theirs in Dice per case; ``row`` says what theirs is."""
    return {"against": row, **paired(case_means(ours, "dice"), case_means(theirs, "dice")).as_json()}


def metrics_of(table: dict[str, Any], network: str) -> list[Metric]:
    """The figures of a table for the model card."""
    kept = [row for row in table["summary"] if row["metric"] in ("dice", "hd95", "nsd")]
    return [
        Metric(
            metric=row["metric"],
            label=row["label"],
            mean=round(row["mean"], 5),
            std=round(row["std"], 5),
            cases=row["cases"],
            split="test",
            network=network,
        )
        for row in kept
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder of Task04_Hippocampus")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the three runs")
    options = parser.parse_args()
    tables = {}
    for row, (run, _) in RUNS.items():
        if not (options.runs / run / "model").is_dir():
            mskd(command(run, options.dataset, options.runs))
        tables[row] = measure(run, options.dataset, options.runs)
    ours = tables["3-student-with-MSKD"]
    ours["comparison"] = [compare(ours, tables[row], row) for row in ("2-student-alone", "1-teacher")]
    RESULTS.mkdir(exist_ok=True)
    for row, table in tables.items():
        (RESULTS / f"hippocampus.{row}.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    package = open_package(options.runs / "mskd" / "model")
    ours_first = reversed(RUNS.items())
    metrics = tuple(entry for row, (_, network) in ours_first for entry in metrics_of(tables[row], network))
    manifest = package.manifest.model_copy(update={"name": "hippocampus-mr", "metrics": metrics})
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    bundled = save_package(MODEL, manifest, package.load_network(), overwrite=True)
    size = sum(path.stat().st_size for path in bundled.path.iterdir())
    print(json.dumps(ours["comparison"], indent=1))
    print(f"{bundled.path}: {size / 1e6:.2f} MB, fingerprint {bundled.fingerprint}")


if __name__ == "__main__":
    main()
