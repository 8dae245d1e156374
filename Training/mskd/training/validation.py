"""Dice of a network on prepared cases, on the network's own grid: quick enough to choose a model by."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mskd.data.prepared import PreparedCase
from mskd.evaluation.metrics import per_class_dice
from mskd.networks.base import channels_last
from mskd.spec import IGNORE, Label, Metric


@dataclass(frozen=True)
class Validation:
    """Dice per case and label, ``[cases, labels]``; NaN where a label occurs in neither prediction nor truth."""

    scores: np.ndarray
    labels: tuple[str, ...]

    @property
    def per_label(self) -> dict[str, float]:
        """Mean over the cases that show the label; NaN when none does."""
        return {name: _mean(self.scores[:, column]) for column, name in enumerate(self.labels)}

    @property
    def dice(self) -> float:
        """Mean over the labels; NaN when there was nothing to measure."""
        return _mean(np.array(list(self.per_label.values())))

    def metrics(self) -> tuple[Metric, ...]:
        """Mean and standard deviation (of the sample, as in evaluation tables) over cases, for the model package."""
        found = []
        for column, name in enumerate(self.labels):
            values = self.scores[:, column]
            values = values[~np.isnan(values)]
            if len(values):
                mean, std = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
                found.append(
                    Metric(metric="dice", label=name, mean=mean, std=std, cases=len(values), split="validation")
                )
        return tuple(found)


def _mean(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, and meant to be
        return float(np.nanmean(values))


def predict(network: nn.Module, case: PreparedCase, dim: int, device: torch.device) -> np.ndarray:
    """Labels uint8 ``[z, y, x]`` of a whole prepared case."""
    image = torch.from_numpy(case.image)
    image = image[None] if dim == 3 else image.movedim(1, 0)
    with torch.inference_mode():
        parts = [
            network(part.to(device, memory_format=channels_last(dim))).argmax(1).to(torch.uint8).cpu()
            for part in image.split(8)
        ]
    whole = torch.cat(parts)
    labels: np.ndarray = (whole[0] if dim == 3 else whole).numpy()
    return labels


def validate(
    network: nn.Module, cases: Sequence[PreparedCase], labels: Sequence[Label], dim: int, device: torch.device
) -> Validation:
    """Dice of every label in every labelled case."""
    return measure((predict(network, case, dim, device) for case in cases), cases, labels)


def measure(predictions: Iterable[np.ndarray], cases: Sequence[PreparedCase], labels: Sequence[Label]) -> Validation:
    """Dice of predictions, one per case."""
    scores = np.full((len(cases), len(labels)), np.nan)
    for row, (prediction, case) in enumerate(zip(predictions, cases, strict=True)):
        if case.labels is not None:
            scores[row] = per_class_dice(prediction, case.labels, len(labels) + 1)
    return Validation(scores, tuple(label.name for label in labels))


def chance_dice(cases: Sequence[PreparedCase], predictions: Sequence[np.ndarray], classes: int) -> float:
    """Mean Dice that these predictions would reach with their voxels shuffled: ``2 p q / (p + q)`` for shares p, q."""
    scores = []
    for case, prediction in zip(cases, predictions, strict=True):
        labels = np.asarray(case.labels)
        counted = labels != IGNORE
        found, truth = prediction[counted], labels[counted]
        for value in range(1, classes):
            share, wanted = float(np.mean(found == value)), float(np.mean(truth == value))
            if wanted > 0:
                scores.append(2 * share * wanted / (share + wanted))
    return float(np.mean(scores)) if scores else 0.0
