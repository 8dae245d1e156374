"""Seconds of a training step on a GPU, the share that waits for data, and the memory beside what the planner counts.

    python Testing/gpu/training_benchmark.py DATASET ... --output Testing/benchmarks/results/speed/gpu-training.json

For each data set and budget the recipe that ``mskd plan`` writes is trained, unedited but for its length, by the code
that trains for good: the teacher, the student alone, the student under the teacher, the student in deterministic mode.
The first interval chooses kernels and allocates memory; the second one is told, without its validation.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS.parents[1] / "Training"), str(BENCHMARKS)]

from peers.machine import machine, usable_cores, versions  # noqa: E402

from mskd.data import open_dataset  # noqa: E402
from mskd.training import run as runs  # noqa: E402
from mskd.training.draft import load_draft  # noqa: E402
from mskd.training.planning import complete  # noqa: E402
from mskd.training.planning.cost import network_cost  # noqa: E402
from mskd.training.settings import Recipe  # noqa: E402


def measure(dataset: Path, budget: str, folder: Path, steps: int) -> Iterator[dict[str, Any]]:
    """All kinds of training on one data set; what is known so far, after each of them."""
    length = [
        f"{role}.optimization.{name}={value}"
        for role in ("teacher", "student")
        for name, value in (("steps", 2 * steps), ("validate_every", steps))
    ]

    def planned(*more: str) -> Recipe:
        draft = load_draft("generic", (f"plan.budget={budget}", *length, *more))
        return complete(draft, open_dataset(dataset), cache=folder / "cache")[0]

    def options(name: str) -> runs.RunOptions:
        return runs.RunOptions(folder / name, device="cuda", cache=folder / "cache")

    recipe = planned()
    teacher = folder / "teacher" / "model"
    kinds: dict[str, Callable[[runs.RunOptions], Any]] = {
        "teacher": lambda where: runs.train(dataset, recipe, "teacher", where),
        "student": lambda where: runs.train(dataset, recipe, "student", where),
        "distilled": lambda where: runs.distil(dataset, str(teacher), recipe, where),
        "deterministic": lambda where: runs.train(dataset, planned("deterministic=true"), "student", where),
    }
    found: dict[str, Any] = {"plan": told(dataset, recipe)}
    for name, start in kinds.items():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        start(options(name))
        row = json.loads((folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[1])
        found[name] = {key: row[key] for key in ("seconds_per_step", "loader_wait")}
        found[name]["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        if "student" in found:
            alone = found["student"]["seconds_per_step"]
            found[name]["times_student"] = round(found[name]["seconds_per_step"] / alone, 2)
        print(f"{dataset.name} {budget} {name}: {found[name]}", flush=True)
        yield found
    torch.use_deterministic_algorithms(False)


def told(dataset: Path, recipe: Recipe) -> dict[str, Any]:
    """What was planned, and what the planner says of its costs."""
    about: dict[str, Any] = {"patch": list(recipe.input.patch), "spacing": list(recipe.input.spacing)}
    data = open_dataset(dataset)
    for name in ("teacher", "student"):
        role = recipe.role(name)
        spec = runs.network_spec(role, name, len(recipe.input.patch), len(data.channels), len(data.labels) + 1)
        cost, batch = network_cost(spec, recipe.input.patch), role.optimization.batch
        memory = round(cost.memory(batch) / 1e9, 2)
        about[name] = {"parameters": cost.parameters, "batch": batch, "counted_gb": memory}
    return about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--budgets", nargs="+", default=["laptop", "gpu"])
    parser.add_argument("--steps", type=int, default=50, help="of an interval")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    # A teacher of some hundred steps knows nothing, and costs as much as one that does.
    runs._require_better_than_chance = lambda *_: None  # type: ignore[assignment]
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "machine": machine(usable_cores()),
        "versions": {**versions(), "cuda": torch.version.cuda},
        "steps": options.steps,
        "runs": {},
    }
    for dataset in options.datasets:
        for budget in options.budgets:
            with tempfile.TemporaryDirectory() as folder:
                for known in measure(dataset, budget, Path(folder), options.steps):
                    found["runs"][f"{dataset.name} {budget}"] = known
                    if options.output is not None:  # what is measured stays, whatever happens to the next
                        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.output is None:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
