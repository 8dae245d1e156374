"""Dice of a network on prepared cases, on the network's own grid: quick enough to choose a model by."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mskd.data.prepared import PreparedCase
from mskd.evaluation.metrics import per_class_dice
from mskd.ranks import gather, rank, world
from mskd.spec import IGNORE, Label, Metric
from mskd.training.whole import whole_logits


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


def predict(network: nn.Module, case: PreparedCase, patch: Sequence[int], device: torch.device) -> np.ndarray:
    """Labels uint8 ``[z, y, x]`` of a prepared case, on the network's own grid."""
    labels: np.ndarray = whole_logits(network, case, patch, device).argmax(0).to(torch.uint8).cpu().numpy()
    return labels


def validate(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    labels: Sequence[Label],
    patch: Sequence[int],
    device: torch.device,
    seen: Callable[[int, PreparedCase, np.ndarray], None] | None = None,
) -> Validation:
    """Dice of every label in every labelled case; several ranks divide the cases and all get the whole result.

    Args:
        seen: Told (index, case, predicted labels) of each case of this rank.
    """
    mine = range(rank(), len(cases), world())
    rows = {}
    for index in mine:
        prediction = predict(network, cases[index], patch, device)
        rows[index] = _scores(prediction, cases[index], labels)
        if seen is not None:
            seen(index, cases[index], prediction)
    every = {index: row for part in gather(rows) for index, row in part.items()}
    scores = np.array([every[index] for index in range(len(cases))]).reshape(len(cases), len(labels))
    return Validation(scores, tuple(label.name for label in labels))


def _scores(prediction: np.ndarray, case: PreparedCase, labels: Sequence[Label]) -> np.ndarray:
    """Dice of each label; NaN for an unlabelled case."""
    if case.labels is None:
        return np.full(len(labels), np.nan)
    return per_class_dice(prediction, case.labels, len(labels) + 1)


def chance_dice(case: PreparedCase, prediction: np.ndarray, classes: int) -> list[float]:
    """Dice of each label of a case that the prediction would reach with its voxels shuffled: ``2 p q / (p + q)``."""
    truth = np.asarray(case.labels)
    counted = truth != IGNORE
    scores = []
    for value in range(1, classes):
        share, wanted = float(np.mean(prediction[counted] == value)), float(np.mean(truth[counted] == value))
        if wanted > 0:
            scores.append(2 * share * wanted / (share + wanted))
    return scores
