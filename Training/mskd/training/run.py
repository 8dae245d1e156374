"""A run from data set to model package: everything it decides and measures lies in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mskd.data import open_dataset
from mskd.data.patches import Batch, PatchSampler
from mskd.data.prepared import PreparedCase
from mskd.distillation.criterion import Distillation
from mskd.errors import SettingsError
from mskd.events import CancelCheck, Listener, never, silent
from mskd.files import require_writable_folder, write_text
from mskd.inference.environment import choose_device, keep_freed_memory
from mskd.networks import SegmentationNetwork, build_network
from mskd.networks.base import to_device
from mskd.package import Package, save_package
from mskd.spec import NetworkSpec
from mskd.teachers import Teacher, open_teacher
from mskd.teachers.base import require_same_task
from mskd.training.checkpoint import Checkpoints
from mskd.training.draft import Draft
from mskd.training.log import RunLog
from mskd.training.loop import Trainer, moving_average
from mskd.training.manifest import make_manifest, versions
from mskd.training.planning import complete
from mskd.training.rundata import RunData, RunInput, prepare_run
from mskd.training.settings import Recipe, Role
from mskd.training.task import DistillationTask, Task
from mskd.training.validation import Validation, chance_dice, measure, predict, validate

RoleName = Literal["teacher", "student"]
CHANCE_MARGIN = 0.1
# What a run writes, its settings last: a folder whose removal was interrupted is still a run's.
RUN_FILES = (
    *("model", "checkpoints", "tensorboard", "metrics.csv", "metrics.jsonl", "problems.jsonl", "plan.json"),
    *("recipe.toml", "split.json", "settings.json"),
)
CACHE = "cache"


@dataclass(frozen=True)
class RunOptions:
    """Where and how to run, as opposed to what (the recipe)."""

    output: Path
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False
    on_event: Listener = silent
    cancelled: CancelCheck = never
    cache: Path | None = None
    jobs: int = 0
    split: Path | None = None

    @property
    def prepared(self) -> Path:
        """Where prepared cases lie: beside the run, or where several runs share them."""
        return self.cache or self.output / CACHE


def train(dataset: Path | str, recipe: Recipe | Draft, role: RoleName, options: RunOptions) -> Package:
    """Train the recipe's teacher, or its student, on labels alone."""
    return _run(dataset, recipe, role, None, options)


def distil(dataset: Path | str, teacher: str, recipe: Recipe | Draft, options: RunOptions) -> Package:
    """Train the recipe's student on labels and under a teacher (see ``open_teacher``)."""
    return _run(dataset, recipe, "student", open_teacher(teacher), options)


def _run(
    path: Path | str, draft: Recipe | Draft, role: RoleName, teacher: Teacher | None, options: RunOptions
) -> Package:
    keep_freed_memory()
    device = choose_device(options.device)
    dataset = open_dataset(path)
    _check_folder(options, [dataset.path, *([teacher.path] if teacher and teacher.path else [])])
    recipe, plan = complete(
        draft,
        dataset,
        split_file=options.split,
        cache=options.prepared,
        jobs=options.jobs,
        on_event=options.on_event,
        cancelled=options.cancelled,
    )
    dim, chosen = len(recipe.input.patch), recipe.role(role)
    spec = network_spec(chosen, role, dim, len(dataset.channels), len(dataset.labels) + 1)
    torch.manual_seed(recipe.seed)
    network = to_device(build_network(spec, source=f"[{role}]"), device, dim)
    if teacher is not None:
        sees = RunInput.of(recipe)
        wanted = (sees.spacing, sees.orientation, sees.normalization)
        require_same_task(teacher, dim, dataset.labels, len(dataset.channels), wanted)
    data = prepare_run(
        dataset,
        recipe,
        options.prepared,
        split_file=options.split,
        jobs=options.jobs,
        with_unlabelled=teacher is not None and chosen.optimization.unlabelled > 0,
        on_event=options.on_event,
        cancelled=options.cancelled,
    )
    if teacher is not None:
        _require_better_than_chance(teacher, data, device)
    nothing = Validation(np.empty((0, len(data.labels))), tuple(label.name for label in data.labels))
    make_manifest(recipe, role, spec, data, teacher, nothing)  # a fault in it must not wait for the last step
    trainer = _trainer(network, teacher, recipe, role, data, device, options)
    resumed = trainer.checkpoints.load_last() if options.resume else None
    if resumed is None:
        _start_folder(options, recipe, role, teacher, data)
        if plan is not None:
            plan.save(options.output / "plan.json")
            write_text(options.output / "recipe.toml", plan.as_toml(recipe))
    else:
        trainer.load(resumed)
    trainer.fit(RunLog(options.output, trainer.step), options.on_event, options.cancelled)
    network.load_state_dict(trainer.checkpoints.load_best()["network"])
    result = validate(network.eval(), data.validation, data.labels, dim, device)
    manifest = make_manifest(recipe, role, spec, data, teacher, result)
    return save_package(options.output / "model", manifest, network.cpu(), overwrite=True)


def network_spec(role: Role, name: RoleName, dim: int, channels: int, classes: int) -> NetworkSpec:
    """The recipe's network, completed with what the data decide."""
    decided = {"dim": dim, "in_channels": channels, "classes": classes}
    clash = sorted(decided.keys() & role.arguments.keys())
    if clash:
        raise SettingsError(f"[{name}.arguments] sets {clash}, which the data decide; remove it from the recipe.")
    return NetworkSpec(name=role.network, arguments={**decided, **role.arguments})


def _check_folder(options: RunOptions, needed: Sequence[Path]) -> None:
    """Refuse to write into a folder that holds something, before any work is done.

    Args:
        needed: What the run reads, which it must not replace.

    Raises:
        SettingsError: the folder is not writable, holds something that is no run, or holds a run and neither resume
            nor overwrite was asked for; or overwriting it would remove what the run reads.
    """
    output = options.output
    if options.resume and options.overwrite:
        raise SettingsError("--resume continues a run and --overwrite replaces it; give one of the two.")
    require_writable_folder(output, "--output")
    require_writable_folder(options.prepared, "--cache")
    if not output.exists() or all(path.name == CACHE for path in output.iterdir()):
        return
    if not options.resume and not options.overwrite:
        raise SettingsError(
            f"--output {output}: this folder is not empty, and was left as it is; continue the run in it with "
            "--resume, replace it with --overwrite, or choose another."
        )
    if not _is_run(output):
        raise SettingsError(
            f"--output {output}: this folder is not empty and not a run's folder, so nothing in it was touched; choose "
            "another."
        )
    inside = [path for path in needed if path.resolve().is_relative_to(output.resolve())]
    if options.overwrite and inside:
        raise SettingsError(
            f"--output {output}: --overwrite would remove {inside[0]}, which this run reads; choose another."
        )


def _is_run(folder: Path) -> bool:
    try:
        return "recipe_sha256" in json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _start_folder(options: RunOptions, recipe: Recipe, role: RoleName, teacher: Teacher | None, data: RunData) -> None:
    """Make the run's folder with its settings and its split; of an earlier run, remove what a run writes."""
    output = options.output
    for name in RUN_FILES if options.overwrite else ():
        remove = shutil.rmtree if (output / name).is_dir() else Path.unlink
        if (output / name).exists():
            remove(output / name)
    output.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "role": role,
        "dataset": str(data.dataset.path),
        "data_fingerprint": data.fingerprint,
        "teacher": None if teacher is None else {"name": teacher.name, "fingerprint": teacher.fingerprint},
        "recipe": recipe.model_dump(mode="json"),
        "recipe_sha256": recipe.digest(role, teacher is not None),
        "versions": versions(),
    }
    write_text(output / "settings.json", json.dumps(settings, indent=1) + "\n")
    data.split.save(output / "split.json")
    if data.problems:
        lines = [json.dumps({"case": problem.case, "reason": problem.reason}) + "\n" for problem in data.problems]
        write_text(output / "problems.jsonl", "".join(lines))


def _require_better_than_chance(teacher: Teacher, data: RunData, device: torch.device) -> None:
    """Refuse a teacher that knows nothing: its student would learn the same, at full cost.

    Raises:
        SettingsError: mean Dice less than 0.1 above that of its own predictions with their voxels shuffled.
    """
    cases = data.validation or data.train
    network = teacher.network.to(device).eval()
    predictions = [predict(network, case, teacher.dim, device) for case in cases]
    score = measure(predictions, cases, data.labels).dice
    chance = chance_dice(cases, predictions, len(data.labels) + 1)
    if not score > chance + CHANCE_MARGIN:
        raise SettingsError(
            f"Teacher '{teacher.name}' reaches a mean Dice of {score:.3f} on {len(cases)} labelled cases, where its "
            f"voxels shuffled would reach {chance:.3f}: it is at chance level and has nothing to teach. Train it "
            "longer, or check that it was made for these images."
        )


def _trainer(
    network: SegmentationNetwork,
    teacher: Teacher | None,
    recipe: Recipe,
    name: RoleName,
    data: RunData,
    device: torch.device,
    options: RunOptions,
) -> Trainer:
    role = recipe.role(name)
    average = moving_average(network, role.optimization.ema)  # before hooks are attached: a copy would carry them along
    task = Task(network)
    if teacher is not None:
        teaching = to_device(teacher.network, device, network.dim)
        example = torch.zeros(1, len(data.dataset.channels), *recipe.input.patch, device=device)
        task = DistillationTask(network, Distillation(recipe.distillation, network, teaching, example).to(device))
    digest = "-".join(
        (recipe.digest(name, teacher is not None), data.fingerprint, teacher.fingerprint if teacher else "")
    )
    return Trainer(
        task,
        average,
        role.optimization,
        device,
        _drawer(recipe, role, data),
        lambda candidate: validate(candidate, data.validation, data.labels, network.dim, device),
        Checkpoints(options.output / "checkpoints", digest),
        recipe.seed,
    )


def _drawer(recipe: Recipe, role: Role, data: RunData) -> Callable[[int], Batch]:
    """step -> batch; the wanted share of steps takes unlabelled cases, where there are any."""
    settings = role.optimization

    def sampler(cases: Sequence[PreparedCase]) -> PatchSampler:
        return PatchSampler(cases, recipe.input.patch, recipe.augmentation, settings.foreground, recipe.seed)

    labelled, unlabelled = sampler(data.train), sampler(data.unlabelled)

    def draw(step: int) -> Batch:
        turn = int((step + 1) * settings.unlabelled) > int(step * settings.unlabelled)
        return (unlabelled if data.unlabelled and turn else labelled).batch(step, settings.batch)

    return draw
