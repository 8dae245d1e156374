"""The data of a run: split by patient, read, checked, and on the network's grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mskd.data import Case, Dataset, Split, split_cases
from mskd.data.arrays import ArrayStore
from mskd.data.fingerprint import fingerprint
from mskd.data.prepared import require_every_class
from mskd.data.split import check_split
from mskd.data.store import Problem, StoredCases, prepare_cases
from mskd.errors import InputError
from mskd.events import CancelCheck, Listener, never, silent
from mskd.spec import Label, Normalization
from mskd.training.settings import Recipe, SplitSettings


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
    train: StoredCases
    validation: StoredCases
    unlabelled: StoredCases
    fingerprint: str

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The cases that were left out, and why."""
        return (*self.train.problems, *self.validation.problems, *self.unlabelled.problems)


def choose_split(dataset: Dataset, settings: SplitSettings, file: Path | None = None) -> Split:
    """The split in a file, or the one that the settings draw."""
    if file is not None:
        return check_split(dataset, Split.load(file))
    return split_cases(dataset, settings.seed, settings.validation, settings.test, settings.folds, settings.fold)


def prepare_run(
    dataset: Dataset,
    recipe: Recipe,
    cache: Path,
    *,
    with_unlabelled: bool,
    split_file: Path | None = None,
    jobs: int = 0,
    on_event: Listener = silent,
    cancelled: CancelCheck = never,
) -> RunData:
    """Split the data set as the recipe says and prepare what training reads.

    Args:
        cache: Folder of prepared cases; what it holds already is not prepared again.
        split_file: A split to take instead of drawing one.
        jobs: Processes that prepare; 0 chooses.

    Raises:
        InputError: a faulty case, no sound one at all, or a class that no training case shows.
    """
    labels = recipe.style(dataset.labels)
    split = choose_split(dataset, recipe.split, split_file)
    spec = RunInput.of(recipe)
    store = ArrayStore(cache)

    def prepare(cases: tuple[Case, ...], phase: str) -> StoredCases:
        return prepare_cases(
            dataset,
            cases,
            spec,
            store,
            jobs=jobs,
            bad_cases=recipe.data.bad_cases,
            phase=phase,
            on_event=on_event,
            cancelled=cancelled,
        )

    train = prepare(dataset.select(split.train), "read training cases")
    if not train:
        raise InputError(
            f"{dataset.path}: none of the {len(split.train)} training cases can be read; the first fault: "
            f"{train.problems[0].reason}"
        )
    require_every_class(train, labels)
    validation = prepare(dataset.select(split.validation), "read validation cases")
    unlabelled = prepare(dataset.unlabelled if with_unlabelled else (), "read unlabelled cases")
    return RunData(
        dataset=dataset,
        labels=labels,
        split=split,
        spec=spec,
        train=train,
        validation=validation,
        unlabelled=unlabelled,
        fingerprint=fingerprint({"train": train, "validation": validation, "unlabelled": unlabelled}),
    )
