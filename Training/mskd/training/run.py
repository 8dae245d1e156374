"""A run from data set to model package: everything it decides and measures lies in one folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mskd.data import open_dataset
from mskd.data.patches import PatchSampler, augment
from mskd.data.prepared import PreparedCase
from mskd.data.store import StoredCases
from mskd.distillation.criterion import Distillation
from mskd.errors import SettingsError
from mskd.events import CancelCheck, Event, Listener, never, silent
from mskd.files import require_writable_folder, write_text
from mskd.inference.environment import choose_device, keep_freed_memory
from mskd.networks import SegmentationNetwork, build_network
from mskd.networks.base import require_statistics, to_device
from mskd.package import Package, open_package, save_package
from mskd.ranks import barrier, gather, rank, world
from mskd.spec import NetworkSpec
from mskd.teachers import Teacher, open_teacher
from mskd.teachers.base import require_same_task
from mskd.training.average import MovingAverage
from mskd.training.checkpoint import Checkpoints
from mskd.training.distributed import process_group, synchronise_batch_norm
from mskd.training.draft import Draft
from mskd.training.feed import PatchReader
from mskd.training.folder import CACHE, RunFolder
from mskd.training.log import RunLog
from mskd.training.loop import Feed, Trainer
from mskd.training.manifest import make_manifest, versions
from mskd.training.planning import complete
from mskd.training.rundata import RunData, RunInput, prepare_run
from mskd.training.settings import Optimization, Recipe, Role
from mskd.training.snapshots import snapshots
from mskd.training.supervision import DeepSupervision
from mskd.training.task import Task
from mskd.training.teacherlogits import TeacherLogits
from mskd.training.validation import Validation, chance_dice, validate

RoleName = Literal["teacher", "student"]
CHANCE_MARGIN = 0.1
SNAPSHOTS = 2
"""Validation cases that TensorBoard shows."""


@dataclass(frozen=True)
class RunOptions:
    """Where and how to run, as opposed to what (the recipe).

    Args:
        cache: Folder of prepared cases that runs may share; by default ``cache/`` in the run's own.
        jobs: Processes that prepare cases; 0 chooses.
    """

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
        """Where prepared cases lie."""
        return self.cache or self.output / CACHE

    @property
    def folder(self) -> RunFolder:
        """Where the run lies."""
        return RunFolder(self.output, self.resume, self.overwrite)


def train(dataset: Path | str, recipe: Recipe | Draft, role: RoleName, options: RunOptions) -> Package:
    """Train the recipe's teacher, or its student, on labels alone."""
    with process_group(options.device) as device:
        return _run(dataset, recipe, role, None, replace(options, device=device))


def distil(dataset: Path | str, teacher: str, recipe: Recipe | Draft, options: RunOptions) -> Package:
    """Train the recipe's student on labels and under a teacher (see ``open_teacher``)."""
    with process_group(options.device) as device:
        return _run(dataset, recipe, "student", open_teacher(teacher), replace(options, device=device))


def _run(
    path: Path | str, draft: Recipe | Draft, role: RoleName, teacher: Teacher | None, options: RunOptions
) -> Package:
    keep_freed_memory()
    device = choose_device(options.device)
    options = options if rank() == 0 else replace(options, on_event=silent)
    dataset = open_dataset(path)
    options.folder.check([dataset.path, *([teacher.path] if teacher and teacher.path else [])])
    if not options.prepared.is_dir():  # one that is there may hold all it needs, and be read-only
        require_writable_folder(options.prepared, "--cache")
    recipe, plan = complete(
        draft,
        dataset,
        split_file=options.split,
        cache=options.prepared,
        jobs=options.jobs,
        on_event=options.on_event,
        cancelled=options.cancelled,
    )
    _be_deterministic(recipe.deterministic)
    dim, chosen = len(recipe.input.patch), recipe.role(role)
    spec = network_spec(chosen, role, dim, len(dataset.channels), len(dataset.labels) + 1)
    torch.manual_seed(recipe.seed)
    network = build_network(spec, source=f"[{role}]")
    require_statistics(network, (chosen.optimization.batch * world(), len(dataset.channels), *recipe.input.patch))
    network = to_device(network, device, dim)
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
        _require_better_than_chance(teacher, data, recipe.input.patch, device)
        data = _with_logits(teacher, data, recipe, device, options)
    nothing = Validation(np.empty((0, len(data.labels))), tuple(label.name for label in data.labels))
    make_manifest(recipe, role, spec, data, teacher, nothing)  # a fault in it must not wait for the last step
    trainer = _trainer(network, teacher, recipe, role, data, device, options)
    if not _resume(trainer, options) and rank() == 0:
        _start(options, recipe, role, teacher, data)
        if plan is not None:
            plan.save(options.output / "plan.json")
            write_text(options.output / "recipe.toml", plan.as_toml(recipe))
    trainer.fit(RunLog(options.output, trainer.step, writes=rank() == 0), options.on_event, options.cancelled)
    barrier()  # the best weights are written by one rank
    network = to_device(build_network(spec), device, dim)
    network.load_state_dict(trainer.checkpoints.load_best()["network"])
    result = validate(network.eval(), data.validation, data.labels, recipe.input.patch, device)
    if rank() == 0:
        manifest = make_manifest(recipe, role, spec, data, teacher, result)
        save_package(options.output / "model", manifest, network.cpu(), overwrite=True)
    barrier()
    return open_package(options.output / "model")


def _resume(trainer: Trainer, options: RunOptions) -> bool:
    """Whether the run goes on from a checkpoint; every rank reads it before any of them writes."""
    state = trainer.checkpoints.load_last() if options.resume else None
    barrier()
    if state is None:
        return False
    trainer.load(state)
    if trainer.finished:
        sentence = f"This run was finished at step {trainer.step}; its model is rewritten."
        options.on_event(Event("train", text=sentence))
    return True


def _be_deterministic(wanted: bool) -> None:
    """Whether torch may use algorithms that do not repeat bit for bit on a GPU."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may differ from run to run
    torch.use_deterministic_algorithms(wanted)


def network_spec(role: Role, name: RoleName, dim: int, channels: int, classes: int) -> NetworkSpec:
    """The recipe's network, completed with what the data decide."""
    decided = {"dim": dim, "in_channels": channels, "classes": classes}
    clash = sorted(decided.keys() & role.arguments.keys())
    if clash:
        raise SettingsError(f"[{name}.arguments] sets {clash}, which the data decide; remove it from the recipe.")
    return NetworkSpec(name=role.network, arguments={**decided, **role.arguments})


def _start(options: RunOptions, recipe: Recipe, role: RoleName, teacher: Teacher | None, data: RunData) -> None:
    """Start the run's folder: its settings, its split, and the cases that were left out."""
    settings: dict[str, Any] = {
        "role": role,
        "dataset": str(data.dataset.path.resolve()),
        "data_fingerprint": data.fingerprint,
        "teacher": None if teacher is None else {"name": teacher.name, "fingerprint": teacher.fingerprint},
        "recipe": recipe.model_dump(mode="json"),
        "recipe_sha256": recipe.digest(role, teacher is not None),
        "processes": world(),
        "versions": versions(),
    }
    options.folder.start(settings)
    data.split.save(options.output / "split.json")
    if data.problems:
        lines = [json.dumps({"case": problem.case, "reason": problem.reason}) + "\n" for problem in data.problems]
        write_text(options.output / "problems.jsonl", "".join(lines))


def _require_better_than_chance(teacher: Teacher, data: RunData, patch: Sequence[int], device: torch.device) -> None:
    """Refuse a teacher that knows nothing: its student would learn the same, at full cost.

    Raises:
        SettingsError: mean Dice less than 0.1 above that of its own predictions with their voxels shuffled.
    """
    cases = data.validation or data.train
    network = teacher.network.to(device).eval()
    by_chance: list[float] = []

    def seen(index: int, case: PreparedCase, prediction: np.ndarray) -> None:
        by_chance.extend(chance_dice(case, prediction, len(data.labels) + 1))

    score = validate(network, cases, data.labels, patch, device, seen).dice
    every = [dice for part in gather(by_chance) for dice in part]
    chance = float(np.mean(every)) if every else 0.0
    if not score > chance + CHANCE_MARGIN:
        raise SettingsError(
            f"Teacher '{teacher.name}' reaches a mean Dice of {score:.3f} on {len(cases)} labelled cases, where its "
            f"voxels shuffled would reach {chance:.3f}: it is at chance level and has nothing to teach. Train it "
            "longer, or check that it was made for these images."
        )


def _with_logits(teacher: Teacher, data: RunData, recipe: Recipe, device: torch.device, options: RunOptions) -> RunData:
    """The cases together with what the teacher says of them, where the recipe wants that cached."""
    if recipe.distillation.teacher_logits != "cached":
        return data
    network = to_device(teacher.network, device, teacher.dim).eval()
    ask = TeacherLogits(network, teacher.fingerprint, recipe.input.patch, device, options.cancelled)

    def extended(cases: StoredCases) -> StoredCases:
        told = options.on_event
        return cases.extend("logits", ask.key, ask, phase="ask the teacher", on_event=told, cancelled=options.cancelled)

    return replace(data, train=extended(data.train), unlabelled=extended(data.unlabelled))


def _trainer(
    network: SegmentationNetwork,
    teacher: Teacher | None,
    recipe: Recipe,
    name: RoleName,
    data: RunData,
    device: torch.device,
    options: RunOptions,
) -> Trainer:
    settings, patch = recipe.role(name).optimization, recipe.input.patch
    average = MovingAverage(network, settings.ema)  # before hooks are attached: a copy would carry them along
    synchronise_batch_norm(network)
    example = torch.zeros(1, len(data.dataset.channels), *patch, device=device)
    supervision = distillation = None
    if settings.deep_supervision:
        supervision = DeepSupervision(network, len(data.labels) + 1, example, recipe.loss)
    if teacher is not None:
        online = recipe.distillation.teacher_logits == "online"
        teaching = to_device(teacher.network, device, network.dim) if online else None
        distillation = Distillation(recipe.distillation, network, teaching, example).to(device)
    digest = "-".join(
        (recipe.digest(name, teacher is not None), data.fingerprint, teacher.fingerprint if teacher else "")
    )

    shown: dict[str, tuple[PreparedCase, np.ndarray]] = {}

    def seen(index: int, case: PreparedCase, prediction: np.ndarray) -> None:
        if case.id in shown or len(shown) < SNAPSHOTS:
            shown[case.id] = case, prediction

    def measure(candidate: nn.Module) -> Validation:
        return validate(candidate, data.validation, data.labels, patch, device, seen)

    def show() -> dict[str, np.ndarray]:
        return snapshots(list(shown.values()), data.labels) if rank() == 0 else {}

    return Trainer(
        Task(network, recipe.loss, supervision=supervision, distillation=distillation),
        average,
        settings,
        device,
        Feed(_reader(recipe, settings, data), augment, measure, show),
        Checkpoints(options.output / "checkpoints", digest, writes=rank() == 0),
        recipe.seed,
    )


def _reader(recipe: Recipe, settings: Optimization, data: RunData) -> PatchReader:
    pairs = recipe.augmentation.pairs(data.labels)
    left_right = "xyz"[next(i for i, letter in enumerate(recipe.input.orientation) if letter in "LR")]

    def sampler(cases: Sequence[PreparedCase]) -> PatchSampler:
        return PatchSampler(
            cases, recipe.input.patch, recipe.augmentation, settings.foreground, recipe.seed, pairs, left_right
        )

    return PatchReader(
        sampler(data.train),
        sampler(data.unlabelled) if data.unlabelled else None,
        settings.unlabelled,
        settings.batch,
        rank(),
        world(),
    )
