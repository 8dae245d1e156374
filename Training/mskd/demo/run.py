"""The demo, stage by stage: data, three trainings, three evaluations, one awkward volume, one report."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mskd import __version__
from mskd.data import Split, open_dataset
from mskd.data.phantom import Anatomy, make_phantom_dataset, oblique_geometry, render, write_array
from mskd.demo.brain import Brain, segment_brain
from mskd.demo.curves import save_curves
from mskd.demo.settings import DemoSettings
from mskd.errors import MSKDError, SettingsError
from mskd.evaluation.metrics import per_class_dice
from mskd.evaluation.overlay import save_overlay
from mskd.evaluation.run import evaluate
from mskd.evaluation.table import POLICY, Table, markdown_rows
from mskd.events import Event
from mskd.image import LabelMap, read_image, write_labels
from mskd.inference import Engine
from mskd.networks import count_parameters
from mskd.package import Package, open_package
from mskd.training.manifest import versions
from mskd.training.run import RunOptions, distil, train
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
    recipe = load_recipe(settings.recipe, settings.overrides)
    if settings.output.is_file():
        raise SettingsError(f"--output {settings.output}: this is a file; give a folder for the demo.")
    settings.output.mkdir(parents=True, exist_ok=True)
    data = _phantom(settings)
    teacher = _train(settings, recipe, data, TEACHER, None)
    models = [teacher, *(_train(settings, recipe, data, name, teacher) for name in (ALONE, STUDENT))]
    split = Split.load(teacher.run / "split.json")
    tables = _evaluate(settings, models, data, split)
    oblique_dice, oblique_report = _segment_oblique(settings, models[-1].package)
    save_curves(settings.curves, {model.name: model.history for model in models})
    brain: Brain | str = "The brain template was left out, as asked."
    if settings.template:
        brain = segment_brain(settings.brain, settings.device, settings.on_event, settings.cancelled)
    return Demo(settings, recipe, split, models, tables, oblique_dice, oblique_report, brain)


def _phantom(settings: DemoSettings) -> Path:
    """The phantom data set, made unless the very same one lies there already."""
    mark, wanted = settings.data / "phantom.json", {"made_by": f"mskd {__version__} demo"}
    wanted |= {"cases": str(settings.cases), "seed": str(settings.seed)}
    wanted |= {"shape": str(settings.shape), "spacing": str(settings.spacing)}
    if settings.data.exists() and any(settings.data.iterdir()):
        if not mark.is_file():
            raise SettingsError(
                f"{settings.data}: this folder is not the demo's and was kept; choose another --output."
            )
        if json.loads(mark.read_text(encoding="utf-8")) == wanted and (settings.data / "dataset.json").is_file():
            settings.on_event(Event("phantom", settings.cases, settings.cases))
            return settings.data
        shutil.rmtree(settings.data)
    settings.data.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    return make_phantom_dataset(
        settings.data,
        settings.cases,
        settings.seed,
        shape=settings.shape,
        spacing=settings.spacing,
        on_event=settings.on_event,
        cancelled=settings.cancelled,
    )


def _train(settings: DemoSettings, recipe: Recipe, data: Path, name: str, teacher: Model | None) -> Model:
    """Train one network, or take the finished run of the same settings; a student with MSKD needs the teacher."""
    folder = settings.runs / FOLDERS[name]
    fingerprint = teacher.package.fingerprint if teacher is not None and name == STUDENT else None
    reused = not settings.fresh and _finished(folder, recipe, fingerprint)
    if not reused:
        options = RunOptions(
            folder,
            settings.device,
            overwrite=folder.exists(),
            on_event=lambda event: settings.on_event(
                Event(f"{name}: {event.phase}", event.done, event.total, event.text)
            ),
            cancelled=settings.cancelled,
        )
        if name == STUDENT and teacher is not None:
            distil(data, str(teacher.package.path), recipe, options)
        else:
            train(data, recipe, "teacher" if name == TEACHER else "student", options)
    package = open_package(folder / "model")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    parameters = count_parameters(package.load_network())
    return Model(name, folder, package, parameters, [json.loads(line) for line in lines], reused)


def _finished(folder: Path, recipe: Recipe, teacher_fingerprint: str | None) -> bool:
    """Whether the folder holds a complete run of this recipe, these versions and this teacher."""
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        open_package(folder / "model")
    except (OSError, ValueError, MSKDError):
        return False
    teacher = settings.get("teacher")
    same_teacher = (None if teacher is None else teacher.get("fingerprint")) == teacher_fingerprint
    return bool(
        same_teacher and settings.get("recipe_sha256") == recipe.digest() and settings.get("versions") == versions()
    )


def _evaluate(settings: DemoSettings, models: list[Model], data: Path, split: Split) -> dict[str, Table]:
    """All three on the same held-out phantoms; writes ``table.md`` and ``table.json``."""
    dataset = open_dataset(data)
    cases = dataset.select(split.test)
    tables = {}
    for model in models:
        name = model.name
        tables[name] = evaluate(
            Engine(model.package, settings.device),
            dataset,
            cases,
            part="test",
            on_event=lambda event, name=name: settings.on_event(  # type: ignore[misc]
                Event(f"{name}: {event.phase}", event.done, event.total, event.text)
            ),
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
    settings.table.write_text("\n".join(text) + "\n", encoding="utf-8")
    results = {name: table.as_json() for name, table in tables.items()}
    settings.table.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
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
