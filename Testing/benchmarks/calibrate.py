"""Weights for the distillation terms of a recipe, found once and then frozen in it.

    python Testing/benchmarks/calibrate.py Task04_Hippocampus --recipe hippocampus --teacher runs/teacher/model

Trains the student alone for a few steps (a random one answers every term with noise), then compares the gradients of
the terms at its last decoder stage with that of the segmentation loss (``mskd.distillation.calibrate``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from mskd.data import open_dataset
from mskd.data.patches import Batch, PatchSampler, augment
from mskd.distillation.calibrate import calibrate
from mskd.distillation.criterion import Distillation
from mskd.networks import build_network
from mskd.teachers import open_teacher
from mskd.training.losses import segmentation_loss
from mskd.training.run import network_spec
from mskd.training.rundata import prepare_run
from mskd.training.settings import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--teacher", required=True, help="model package")
    parser.add_argument("--cache", type=Path, help="folder of prepared cases (default: a temporary one)")
    parser.add_argument("--steps", type=int, default=120, help="training steps of the student before the comparison")
    parser.add_argument("--batches", type=int, default=6, help="batches to compare the gradients on")
    parser.add_argument("--target", type=float, default=0.5, help="distillation gradient / segmentation gradient")
    options = parser.parse_args()

    recipe = load_recipe(options.recipe)
    temporary = tempfile.TemporaryDirectory()
    cache = options.cache or Path(temporary.name)
    data = prepare_run(open_dataset(options.dataset), recipe, cache, with_unlabelled=False)
    settings, patch = recipe.student.optimization, recipe.input.patch
    sampler = PatchSampler(data.train, patch, recipe.augmentation, settings.foreground, recipe.seed)

    def draw(step: int) -> Batch:
        return augment(sampler.draw(step, range(settings.batch)))

    torch.manual_seed(recipe.seed)
    channels = len(data.dataset.channels)
    student = build_network(network_spec(recipe.student, "student", len(patch), channels, len(data.labels) + 1))
    optimizer = torch.optim.AdamW(student.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    for step in range(options.steps):
        batch = draw(step)
        optimizer.zero_grad()
        segmentation_loss(student(batch.images), batch.labels, recipe.loss).backward()
        optimizer.step()
    teacher = open_teacher(options.teacher).network
    distillation = Distillation(recipe.distillation, student, teacher, torch.zeros(1, channels, *patch))
    held_back = [draw(options.steps + index) for index in range(options.batches)]
    found = calibrate(
        distillation,
        lambda logits, labels: segmentation_loss(logits, labels, recipe.loss),
        [(batch.images, batch.labels) for batch in held_back],
        target=options.target,
    )
    print(json.dumps({"weights": found.weights, "gradient_ratios_at_weight_1": found.ratios}, indent=1))


if __name__ == "__main__":
    main()
