"""The engine against nnU-Net and MONAI, from file to labels file: seconds by phase, peak memory, and the roofline.

    python Testing/benchmarks/engine.py --data FOLDER --output Testing/benchmarks/results/speed/engine.json
    python Testing/benchmarks/engine_report.py            writes docs/engine-benchmark.md and its chart from that file

FOLDER holds the images named in ``IMAGES``; what is not there is left out. nnunetv2 and monai must be installed; run
it on a machine that does nothing else. Every contender is a process of its own, started anew in every round, in
turning order; ours, over in seconds, run after each of the others, so that their medians meet the same quick and slow
minutes; a round before the counted ones lets the engine measure its backends and the system fill its file
cache. ``--quick`` runs all of it on one small crop, to see that it works. The JSON is written after every run: a
benchmark that is cut short keeps what it has."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers.child import ROOT, environment, last_words, run_child
from peers.contenders import OURS, PEERS, Contender, Files, Task, command, contenders, read_result
from peers.machine import machine, public, usable_cores, versions

BUNDLED = ROOT / "MSKDSegmentation" / "Resources" / "Models" / "hippocampus-mr"
CT_SHAPE = (200, 200, 200)
"""Median size that makes nnU-Net's planner choose its default 128^3 patch and six stages at 1.5 mm."""

HIPPOCAMPUS_SHAPE = (36, 50, 35)
IMAGES = {
    "chest": "volumes/chest_ct_1mm.nii.gz",
    "body": "volumes/body_ct_3mm.nii.gz",
    "hippocampus": "Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz",
}
QUICK_SIDE, QUICK_PATCH = 24, 32
STUDENTS = ("strided", "light")
SETTINGS = ("rounds", "windows", "threads", "seed", "quick", "students")


@dataclass
class Bench:
    """What all runs share, and what was found so far."""

    options: argparse.Namespace
    folder: Path
    found: dict[str, Any] = field(default_factory=dict)

    def child(self, name: str, line: list[str], *, tuned: bool = False) -> tuple[Any, Path]:
        """Run one process, its output kept in ``name``.log."""
        log = self.folder / f"{name}.log"
        variables = environment(self.options.threads, self.folder / "cache", tuned=tuned)
        return run_child(line, variables, log), log

    def module(self, name: str, *arguments: str) -> None:
        """Run a helper that has to succeed."""
        ended, log = self.child(name.replace(".", "-"), [sys.executable, "-m", name, *arguments])
        if ended.code:
            raise SystemExit(f"{name} ended with code {ended.code}:\n{last_words(log, 20)}")

    def save(self) -> None:
        self.found["summary"] = summarised(self.found["runs"])
        text = json.dumps(self.found, indent=1) + "\n"
        self.options.output.parent.mkdir(parents=True, exist_ok=True)
        self.options.output.write_text(text, encoding="utf-8")


def lay_out(bench: Bench) -> list[Task]:
    """Packages and nnU-Net's model folders for the images that are there."""
    folder, options = bench.folder, bench.options
    if options.quick:
        source = options.data / IMAGES["body"]
        bench.module("peers.crop", str(source), str(folder / "crop.nii.gz"), "--side", str(QUICK_SIDE))
        images = {"crop": folder / "crop.nii.gz"}
    else:
        images = {name: options.data / IMAGES[name] for name in options.images}
    images = {name: path for name, path in images.items() if path.is_file()}
    if not images:
        raise SystemExit(f"none of {', '.join(IMAGES.values())} is in {options.data}; give their folder with --data")
    tasks = []
    for kind in dict.fromkeys("hippocampus" if name == "hippocampus" else "ct" for name in images):
        mine = {name: path for name, path in images.items() if (name == "hippocampus") == (kind == "hippocampus")}
        packages, model = _models(bench, kind, next(iter(mine.values())))
        tasks += [Task(name, path, packages, model) for name, path in mine.items()]
    return tasks


def _models(bench: Bench, kind: str, image: Path) -> tuple[dict[str, Path], Path]:
    model, seed = bench.folder / f"nnunet-{kind}", str(bench.options.seed)
    if kind == "hippocampus":
        packages, shape = {"bundled": BUNDLED}, HIPPOCAMPUS_SHAPE
    else:
        students = bench.folder / "students"
        patch = QUICK_PATCH if bench.options.quick else 128
        sizes = ["--patch", str(patch), *(["--steps", "2"] if bench.options.quick else [])]
        bench.module("peers.students", str(image), "--output", str(students), *sizes, "--seed", seed)
        packages = {name: students / name for name in bench.options.students}
        shape = (QUICK_PATCH,) * 3 if bench.options.quick else CT_SHAPE
    if any(kind.startswith("nnunet") for kind in bench.options.peers):
        package = str(next(iter(packages.values())))
        sides = [str(side) for side in shape]
        bench.module("peers.nnunet", "plan", str(model), "--package", package, "--shape", *sides, "--seed", seed)
    return packages, model


def run_one(bench: Bench, task: Task, contender: Contender, turn: int) -> dict[str, Any]:
    """One run; a contender that fails is recorded with its last words, and the others go on."""
    stem = f"{task.name}-{contender.name.replace(' ', '-')}"
    files = Files(*(bench.folder / f"{stem}.{ending}" for ending in ("nii.gz", "json", "log")))
    for path in (files.labels, files.result):
        path.unlink(missing_ok=True)
    line = command(contender, task, files, bench.options.windows, bench.options.memory)
    ended, log = bench.child(stem, line, tuned=contender.tuned)
    about = {"image": task.name, "contender": contender.name, "round": turn, "peak_mb": round(ended.peak_mb, 1)}
    about |= {"process_seconds": round(ended.seconds, 3), "kind": contender.kind, "student": contender.student}
    if ended.code or not files.labels.is_file():
        return {**about, "failed": {"code": ended.code, "said": last_words(log)}}
    return {**about, **read_result(contender, files.result)}


def summarised(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the counted rounds, by image and contender; a contender that never ended well has its failure."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        if run["round"] > 0:
            groups.setdefault((run["image"], run["contender"]), []).append(run)
    rows = []
    for (image, contender), group in groups.items():
        well = [run for run in group if "failed" not in run]
        row: dict[str, Any] = {"image": image, "contender": contender, "kind": group[0]["kind"], "rounds": len(well)}
        row["student"] = group[0]["student"]
        if not well:
            rows.append({**row, "failed": group[-1]["failed"]})
            continue
        names = dict.fromkeys(name for run in well for name in run["seconds"])
        row["seconds"] = {
            name: round(statistics.median(run["seconds"].get(name, 0.0) for run in well), 4) for name in names
        }
        row["seconds_range"] = [round(choose(run["seconds"]["total"] for run in well), 4) for choose in (min, max)]
        row["process_seconds"] = round(statistics.median(run["process_seconds"] for run in well), 3)
        row["peak_mb"] = round(statistics.median(run["peak_mb"] for run in well), 1)
        row |= {name: well[-1][name] for name in ("extrapolated", "network", "told") if name in well[-1]}
        rows.append(row)
    return rows


def in_order(everyone: list[Contender], turn: int) -> list[Contender]:
    """A round: the peers from another one on each time, and after each of them all of ours."""
    ours = [contender for contender in everyone if contender.kind == OURS]
    peers = [contender for contender in everyone if contender.kind != OURS]
    if turn == 0 or not peers:  # not counted; peers choose nothing that a first run would have to find out
        return ours
    shift = turn % len(peers)
    return [one for peer in peers[shift:] + peers[:shift] for one in (peer, *ours)]


def measure(bench: Bench, tasks: list[Task]) -> None:
    """All rounds of all images, one round of everything after the other."""
    options = bench.options
    for turn in range(options.rounds + 1):
        for task in tasks:
            everyone = contenders(list(task.packages), options.backends, options.peers)
            for contender in in_order(everyone, turn):
                run = run_one(bench, task, contender, turn)
                bench.found["runs"].append(run)
                bench.save()
                said = "failed" if "failed" in run else f"{run['seconds']['total']:.2f} s, {run['peak_mb']:.0f} MB"
                print(f"round {turn} {task.name}: {contender.name}: {said}", flush=True)


def compare(bench: Bench, tasks: list[Task]) -> None:
    """Roofline and agreement of labels, per image, and the guard of accuracy where a trained model was named."""
    bench.found["roofline"], bench.found["agreement"] = {}, {}
    for task in tasks:
        for row in bench.found["summary"]:
            if row["image"] == task.name and row["kind"] == OURS and "failed" not in row:
                bench.found["roofline"][f"{task.name}: {row['contender']}"] = _roofline(bench, task, row)
        first = next(iter(task.packages))
        same = [Contender(OURS, first, bench.options.backends[0]), *(Contender(kind, first) for kind in PEERS[1:])]
        files = {one.name: bench.folder / f"{task.name}-{one.name.replace(' ', '-')}.nii.gz" for one in same}
        named = [f"{name}={path}" for name, path in files.items() if path.is_file()]
        result = bench.folder / "agreement.json"
        bench.module("peers.agreement", str(result), *named)
        bench.found["agreement"][task.name] = json.loads(result.read_text(encoding="utf-8"))
    if bench.options.trained:
        images = sorted(str(path) for path in bench.options.images_of_trained.glob("*.nii.gz"))
        result = bench.folder / "guard.json"
        bench.module("peers.guard", str(bench.options.trained), *images, "--result", str(result))
        bench.found["guard"] = json.loads(result.read_text(encoding="utf-8"))
    bench.save()


def _roofline(bench: Bench, task: Task, row: dict[str, Any]) -> dict[str, float]:
    plan, result = row["told"]["plan"], bench.folder / "roofline.json"
    window = [str(side) for side in plan["window"]]
    side = ["--side", "512"] if bench.options.quick else []
    package = str(task.packages[row["student"]])
    bench.module("peers.roofline", package, str(result), "--window", *window, "--windows", str(plan["windows"]), *side)
    found: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
    return {**found, "times_roofline": row["seconds"]["network"] / found["seconds"]}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the images")
    parser.add_argument("--output", type=Path, required=True, help="JSON of the results")
    parser.add_argument("--images", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument(
        "--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), help="for CT; peers run the first one"
    )
    parser.add_argument("--backends", nargs="+", default=["auto"], help="of the engine; auto leaves it the choice")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=4, help="that nnU-Net's own network computes; 0 is all of them")
    parser.add_argument("--memory", default="", help="what the engine may use, as mskd segment takes it")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trained", type=Path, help="a trained package, for the guard of accuracy")
    parser.add_argument("--images-of-trained", type=Path, help="folder of .nii.gz that it was made for")
    parser.add_argument("--quick", action="store_true", help="one small crop, small windows")
    options = parser.parse_args(arguments)
    if (options.trained is None) != (options.images_of_trained is None):
        parser.error("--trained and --images-of-trained belong together")
    return options


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="mskd-benchmark-") as temporary:
        bench = Bench(options, Path(temporary))
        bench.found = {
            "command": " ".join(["python", "Testing/benchmarks/engine.py", *public(arguments)]),
            "machine": machine(options.threads),
            "versions": versions(),
            "settings": {name: getattr(options, name) for name in SETTINGS},
            "runs": [],
        }
        tasks = lay_out(bench)
        measure(bench, tasks)
        compare(bench, tasks)


if __name__ == "__main__":
    main(sys.argv[1:])
