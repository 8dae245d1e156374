"""The demo, stage by stage: data, three trainings, three evaluations, one awkward volume, one report."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mskd.data import Split, open_dataset
from mskd.data.phantom import (
    Anatomy,
    centred_geometry,
    make_phantom_dataset,
    oblique_geometry,
    render,
    write_array,
)
from mskd.demo.brain import Brain, segment_brain
from mskd.demo.settings import DemoSettings
from mskd.errors import Cancelled, MSKDError, SettingsError
from mskd.evaluation.metrics import per_class_dice
from mskd.evaluation.overlay import save_overlay
from mskd.evaluation.run import evaluate
from mskd.evaluation.table import POLICY, Table, markdown_rows
from mskd.events import Event, Listener
from mskd.files import require_writable_folder, write_text
from mskd.image import LabelMap, read_image, write_labels
from mskd.inference import Engine
from mskd.networks import count_parameters
from mskd.package import Package, open_package
from mskd.report.charts import save_curves
from mskd.training.manifest import versions
from mskd.training.run import RoleName, RunOptions, distil, train
from mskd.training.settings import Recipe, load_recipe

TEACHER, ALONE, STUDENT = "teacher", "student alone", "student with MSKD"
FOLDERS = {TEACHER: "teacher", ALONE: "student-alone", STUDENT: "student-mskd"}
OBLIQUE_SUBJECT = 999_999  # an anatomy that no data set of this demo holds


@dataclass(frozen=True)
class Model:
    """One trained network of the demo."""

    name: str
    run: Path
    package: Package
    parameters: int
    history: list[dict[str, Any]]
    reused: bool


@dataclass(frozen=True)
class Demo:
    """All that the report shows."""

    settings: DemoSettings
    recipe: Recipe
    split: Split
    models: list[Model]
    tables: dict[str, Table]
    oblique_dice: dict[str, float]
    oblique_report: dict[str, Any]
    brain: Brain | str


def run_demo(settings: DemoSettings) -> Demo:
    """Walk the whole road and leave its products in ``settings.output``; ``report.html`` is left to the caller.

    Raises:
        SettingsError: the output is a file, or holds a folder of the demo's name that is not the demo's.
        Cancelled: asked to stop; what was finished is kept and used by the next run.
    """
    require_writable_folder(settings.output, "--output")
    try:
        return _walk(settings, load_recipe(settings.recipe, settings.overrides))
    except Cancelled as stopped:
        raise Cancelled("The demo was stopped; start it again: the networks that were finished are kept.") from stopped


def _walk(settings: DemoSettings, recipe: Recipe) -> Demo:
    settings.output.mkdir(parents=True, exist_ok=True)
    if not _phantom(settings):
        settings = replace(settings, fresh=True)  # runs on other data are of no use
    teacher = _train(settings, recipe, TEACHER, None)
    models = [teacher, *(_train(settings, recipe, name, teacher) for name in (ALONE, STUDENT))]
    split = Split.load(teacher.run / "split.json")
    tables = _evaluate(settings, models, split)
    oblique_dice, oblique_report = _segment_oblique(settings, models[-1].package)
    save_curves(settings.curves, {model.name: model.history for model in models})
    brain: Brain | str = "The brain template was left out, as asked."
    if settings.template:
        brain = segment_brain(settings.brain, settings.device, settings.on_event, settings.cancelled)
    return Demo(settings, recipe, split, models, tables, oblique_dice, oblique_report, brain)


def _phantom(settings: DemoSettings) -> bool:
    """Make the phantom data set, unless the very same one lies there already; returns whether it was kept."""
    mark, wanted = settings.data / "phantom.json", _phantom_identity(settings)
    if settings.data.exists() and any(settings.data.iterdir()):
        if not mark.is_file():
            raise SettingsError(
                f"{settings.data}: this folder is not the demo's and was kept; choose another --output."
            )
        if (settings.data / "dataset.json").is_file() and mark.read_text(encoding="utf-8") == wanted:
            return True
        shutil.rmtree(settings.data)
    settings.data.mkdir(parents=True, exist_ok=True)
    write_text(mark, wanted)
    make_phantom_dataset(
        settings.data,
        settings.cases,
        settings.seed,
        shape=settings.shape,
        spacing=settings.spacing,
        on_event=settings.on_event,
        cancelled=settings.cancelled,
    )
    return False


def _phantom_identity(settings: DemoSettings) -> str:
    """What the data set is made of; the hash of one small subject stands for the code that makes it."""
    image, labels = render(Anatomy(settings.seed), centred_geometry((16, 20, 20), (9.0, 9.0, 9.0), np.eye(3)), 0)
    identity = {
        "cases": settings.cases,
        "seed": settings.seed,
        "shape": list(settings.shape),
        "spacing": list(settings.spacing),
        "subject": hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest(),
    }
    return json.dumps(identity, indent=1) + "\n"


def _prefixed(settings: DemoSettings, name: str) -> Listener:
    """Tells which of the three networks an event is about; ``validate`` keeps its name, as consoles know it."""

    def listen(event: Event) -> None:
        if event.phase == "validate":
            settings.on_event(replace(event, text=f"{name}, {event.text}"))
        else:
            settings.on_event(replace(event, phase=f"{name}: {event.phase}"))

    return listen


def _train(settings: DemoSettings, recipe: Recipe, name: str, teacher: Model | None) -> Model:
    """Train one network, or take the finished run of the same settings; only the student with MSKD has a teacher."""
    folder = settings.runs / FOLDERS[name]
    role: RoleName = "teacher" if name == TEACHER else "student"
    guide = teacher.package if teacher is not None and name == STUDENT else None
    digest = recipe.digest(role, guide is not None)
    reused = not settings.fresh and _finished(folder, digest, guide.fingerprint if guide else None)
    if not reused:
        options = RunOptions(
            folder,
            settings.device,
            overwrite=folder.exists(),
            on_event=_prefixed(settings, name),
            cancelled=settings.cancelled,
            cache=settings.runs / "cache",
        )
        if guide is not None:
            distil(settings.data, str(guide.path), recipe, options)
        else:
            train(settings.data, recipe, role, options)
    package = open_package(folder / "model")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    parameters = count_parameters(package.load_network())
    return Model(name, folder, package, parameters, [json.loads(line) for line in lines], reused)


def _finished(folder: Path, digest: str, teacher: str | None) -> bool:
    """Whether the folder holds a complete run with these settings, versions and teacher (by fingerprint)."""
    try:
        found = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        open_package(folder / "model")
    except (OSError, ValueError, MSKDError):
        return False
    theirs = (found.get("teacher") or {}).get("fingerprint")
    return bool((found.get("recipe_sha256"), theirs, found.get("versions")) == (digest, teacher, versions()))


def _evaluate(settings: DemoSettings, models: list[Model], split: Split) -> dict[str, Table]:
    """All three on the same held-out phantoms; writes ``table.md`` and ``table.json``."""
    dataset = open_dataset(settings.data)
    cases = dataset.select(split.test)
    tables = {}
    for model in models:
        tables[model.name] = evaluate(
            Engine(model.package, settings.device),
            dataset,
            cases,
            part="test",
            tolerance=max(settings.spacing),  # one voxel
            on_event=_prefixed(settings, model.name),
            cancelled=settings.cancelled,
        )
    text = [
        "# Held-out phantoms",
        "",
        f"{len(cases)} phantoms that no training saw, mean ± standard deviation over cases. One seed, a budget of "
        "minutes: this shows that the road works, and is no comparison of methods.",
        "",
        *markdown_rows(tables),
        "",
        POLICY,
    ]
    write_text(settings.table, "\n".join(text) + "\n")
    results = {name: table.as_json() for name, table in tables.items()}
    write_text(settings.table.with_suffix(".json"), json.dumps(results, indent=1) + "\n")
    return tables


def _segment_oblique(settings: DemoSettings, package: Package) -> tuple[dict[str, float], dict[str, Any]]:
    """Segment a new anatomy on an awkward grid; returns Dice per label and the engine's report."""
    geometry = oblique_geometry()
    voxels, truth = render(Anatomy(OBLIQUE_SUBJECT), geometry, OBLIQUE_SUBJECT)
    write_array(settings.volume, voxels, geometry)
    image = read_image(settings.volume)
    result = Engine(package, settings.device).run(image, on_event=settings.on_event, cancelled=settings.cancelled)
    labels = package.manifest.labels
    write_labels(settings.segmentation, result.labels, labels, overwrite=True)
    save_overlay(
        settings.overlay, image, LabelMap(truth, image.geometry), {STUDENT: result.labels}, labels, margin=25.0
    )
    dice = per_class_dice(result.labels.array, truth, len(labels) + 1)
    return {label.name: float(value) for label, value in zip(labels, np.nan_to_num(dice), strict=True)}, result.report
