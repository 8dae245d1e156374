"""The data of a run: split by patient, read, checked, and on the network's grid."""

from __future__ import annotations

from dataclasses import dataclass

from mskd.data import Case, Dataset, Split, split_cases
from mskd.data.fingerprint import fingerprint
from mskd.data.prepared import PreparedCase, prepare_cases, require_every_class
from mskd.events import CancelCheck, Listener, never, silent
from mskd.spec import Label, Normalization
from mskd.training.settings import Recipe


@dataclass(frozen=True)
class RunInput:
    """The part of a manifest that decides what the network sees."""

    spacing: tuple[float | None, float | None, float | None]
    orientation: str
    normalization: Normalization

    @classmethod
    def of(cls, recipe: Recipe) -> RunInput:
        z, y, x = (side or None for side in recipe.input.spacing)
        return cls((z, y, x), recipe.input.orientation, recipe.input.normalization)


@dataclass(frozen=True)
class RunData:
    """The cases of each part. Test cases are named in the split, and never read here."""

    dataset: Dataset
    labels: tuple[Label, ...]
    split: Split
    spec: RunInput
    train: list[PreparedCase]
    validation: list[PreparedCase]
    unlabelled: list[PreparedCase]
    fingerprint: str


def prepare_run(
    dataset: Dataset,
    recipe: Recipe,
    *,
    with_unlabelled: bool,
    on_event: Listener = silent,
    cancelled: CancelCheck = never,
) -> RunData:
    """Split the data set as the recipe says and prepare what training reads.

    Raises:
        InputError: a faulty case, or a class that no training case shows.
    """
    labels = recipe.style(dataset.labels)
    split = split_cases(dataset, recipe.split.seed, recipe.split.validation, recipe.split.test)
    spec = RunInput.of(recipe)

    def prepare(cases: tuple[Case, ...], phase: str) -> list[PreparedCase]:
        return prepare_cases(dataset, cases, spec, phase=phase, on_event=on_event, cancelled=cancelled)

    train = prepare(dataset.select(split.train), "read training cases")
    require_every_class(train, labels)
    return RunData(
        dataset=dataset,
        labels=labels,
        split=split,
        spec=spec,
        train=train,
        validation=prepare(dataset.select(split.validation), "read validation cases"),
        unlabelled=prepare(dataset.unlabelled, "read unlabelled cases") if with_unlabelled else [],
        fingerprint=fingerprint(train),
    )
