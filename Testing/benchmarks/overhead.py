"""What distillation costs: a step of a student alone, one under its teacher, and one from the teacher's cached logits.

    OMP_NUM_THREADS=1 python Testing/benchmarks/overhead.py --recipe hippocampus --output overhead.json

Networks, patch and batch are the recipe's, their weights random; images are noise around two organs. A step is forward,
losses, backward, clipping and AdamW, in the precision that training would choose here; reading and augmenting data,
the same for all, is left out. Each round takes one step of every kind, in turning order. ``ratio`` is the median over
the rounds of the ratio within a round, so that what else the machine does weighs on all alike; ``ratio_of_fastest``
compares the least disturbed step of each kind.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from mskd.distillation import Distillation
from mskd.distillation.frozen import frozen
from mskd.files import write_text
from mskd.inference.environment import device_name, keep_freed_memory, versions
from mskd.networks import build_network
from mskd.networks.base import channels_last, to_device
from mskd.training.losses import segmentation_loss
from mskd.training.precision import PrecisionName, mixed_precision
from mskd.training.run import network_spec
from mskd.training.settings import Recipe, load_recipe

CHANNELS, CLASSES = 1, 3
WARM_UP = 2
"""Rounds that are not counted: they also allocate memory."""

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="hippocampus")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=get_args(PrecisionName), help="instead of the recipe's")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    recipe, device = load_recipe(options.recipe), torch.device(options.device)
    autocast, _ = mixed_precision(options.precision or recipe.student.optimization.precision, device)
    found = measure(make_steps(recipe, device, autocast), options.rounds, device)
    result = {
        **found,
        "recipe": recipe.name,
        "networks": {"student": recipe.student.network, "teacher": recipe.teacher.network},
        "patch": recipe.input.patch,
        "batch": recipe.student.optimization.batch,
        "precision": computed_in(autocast, device),
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "machine": f"{device_name(device)}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "versions": versions(),
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if options.output is not None:
        write_text(options.output, text)


def computed_in(autocast: torch.autocast, device: torch.device) -> str:
    """The numbers of a matrix product."""
    one = torch.ones(1, 1, device=device)
    with autocast:
        return str((one @ one).dtype).removeprefix("torch.")


def make_steps(recipe: Recipe, device: torch.device, autocast: torch.autocast) -> dict[str, Step]:
    """``plain``, ``online`` (all terms of the recipe), ``cached`` (KD alone); ``teacher`` is its forward pass alone."""
    torch.manual_seed(recipe.seed)
    dim = len(recipe.input.patch)
    images, labels = make_batch(recipe, dim)
    images = images.to(device, memory_format=channels_last(dim))
    labels = labels.to(device)
    spec = network_spec(recipe.teacher, "teacher", dim, CHANNELS, CLASSES)
    teacher = to_device(build_network(spec), device, dim).eval()
    with torch.no_grad():
        logits = teacher(images).half()
    from_logits = recipe.distillation.model_dump() | {"teacher_logits": "cached", "terms": {"kd": {}}}
    settings = {"plain": None, "online": recipe.distillation, "cached": type(recipe.distillation)(**from_logits)}
    steps = {
        name: make_step(recipe, chosen and (chosen, teacher), images, labels, logits, autocast)
        for name, chosen in settings.items()
    }
    reader, layout = frozen(teacher, (), dim)

    @torch.no_grad()
    def read() -> None:
        with autocast:
            reader(images.contiguous(memory_format=layout))

    return steps | {"teacher": read}


def make_batch(recipe: Recipe, dim: int) -> tuple[Tensor, Tensor]:
    """Images ``[N, 1, *patch]`` and labels ``[N, *patch]`` of two organs that fill some 6 % of a 3D patch."""
    patch, batch = recipe.input.patch, recipe.student.optimization.batch
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in patch], indexing="ij")
    inside = sum((2 * axis).square() for axis in axes) < 1
    labels = (inside * (1 + (axes[-1] > 0))).long().expand(batch, *patch)
    return labels[:, None] + torch.randn(batch, CHANNELS, *patch), labels.contiguous()


def make_step(
    recipe: Recipe,
    distilling: tuple | None,
    images: Tensor,
    labels: Tensor,
    logits: Tensor,
    autocast: torch.autocast,
) -> Step:
    """One optimiser step of a student of its own, with ``distilling`` = (settings, teacher) or without."""
    dim, optimization = len(recipe.input.patch), recipe.student.optimization
    student = build_network(network_spec(recipe.student, "student", dim, CHANNELS, CLASSES))
    student = to_device(student, images.device, dim)
    criterion = None if distilling is None else Distillation(distilling[0], student, distilling[1], images[:1])
    weights = [*student.parameters(), *([] if criterion is None else criterion.parameters())]
    optimizer = torch.optim.AdamW(weights, optimization.learning_rate, weight_decay=optimization.weight_decay)
    student.train()

    def step() -> None:
        if criterion is None:
            with autocast:
                given = student(images)
            loss = segmentation_loss(given.float(), labels, recipe.loss)
        else:
            with autocast:
                outputs = criterion.student_forward(images)
                heard = criterion.teacher_forward(images, logits)
            terms = criterion(outputs, heard, labels, 1.0).values()
            loss = segmentation_loss(outputs.logits, labels, recipe.loss) + torch.stack(list(terms)).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, optimization.clip)
        optimizer.step()

    return step


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Seconds of a step of each kind, and how they relate to ``plain``.

    On a CPU they are processor time: what a step waits for other programs is not its cost.
    """
    names, now = list(steps), time.process_time if device.type == "cpu" else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = now()
            steps[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= WARM_UP:
                taken[name].append(now() - started)
    pairs = {name: zip(taken[name], taken["plain"], strict=True) for name in names}
    return {
        "median_seconds": {name: round(statistics.median(taken[name]), 4) for name in names},
        "fastest_seconds": {name: round(min(taken[name]), 4) for name in names},
        "ratio": {name: round(statistics.median(own / plain for own, plain in pairs[name]), 3) for name in names},
        "ratio_of_fastest": {name: round(min(taken[name]) / min(taken["plain"]), 3) for name in names},
    }


if __name__ == "__main__":
    main()
