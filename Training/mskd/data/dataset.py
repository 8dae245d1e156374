"""What a data set is, whatever its layout on disk, and how one is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from mskd.data.parts import Part
from mskd.data.sides import mirror_pairs, one_sided
from mskd.errors import InputError
from mskd.registry import Registry
from mskd.spec import IGNORE, Channel, Label


@dataclass(frozen=True)
class Case:
    """One examination: its image files (one a channel, or one with all), its label file if any, and whose it is.

    Cases with the same ``patient`` are never divided between the parts of a split.
    """

    id: str
    images: tuple[Path, ...]
    labels: Path | None
    patient: str


@dataclass(frozen=True)
class Dataset:
    """Cases with a common meaning of channels and label values.

    Args:
        labels: With the values 1, 2, 3, ..., whatever the label files hold.
        file_values: The value of each of ``labels`` in the files; empty where it is the label's own.
        unused: Further values in the files, which count as background.
        ignore: The value in the files of voxels that neither teach nor count, if there is one.
        parts: The split that the data set comes with: case ids of "train", "validation" and "test", as far as it says.
    """

    name: str
    path: Path
    channels: tuple[Channel, ...]
    labels: tuple[Label, ...]
    cases: tuple[Case, ...]
    licence: str = ""
    citation: str = ""
    file_values: tuple[int, ...] = ()
    unused: tuple[int, ...] = ()
    ignore: int | None = None
    parts: Mapping[Part, tuple[str, ...]] = field(default_factory=dict)

    @property
    def labelled(self) -> tuple[Case, ...]:
        """The cases that can be learnt from and measured on."""
        return tuple(case for case in self.cases if case.labels is not None)

    @property
    def unlabelled(self) -> tuple[Case, ...]:
        """The cases that only a teacher can explain."""
        return tuple(case for case in self.cases if case.labels is None)

    @property
    def values(self) -> dict[int, int]:
        """What each value in the label files stands for: 0, the value of a label, or ``IGNORE``."""
        own = [label.value for label in self.labels]
        found = {0: 0, **dict.fromkeys(self.unused, 0), **dict(zip(self.file_values or own, own, strict=True))}
        return found if self.ignore is None else {**found, self.ignore: IGNORE}

    @property
    def mirror_pairs(self) -> tuple[tuple[int, int], ...]:
        """(left, right) values of labels that trade places when an image is mirrored left to right."""
        return mirror_pairs(self.labels)

    @property
    def one_sided(self) -> tuple[Label, ...]:
        """Labels of one side without their partner: mirrored left to right, their images contradict them."""
        return one_sided(self.labels)

    def select(self, ids: Iterable[str]) -> tuple[Case, ...]:
        """The cases of these ids, in that order.

        Raises:
            InputError: an id that the data set does not have.
        """
        ids, known = tuple(ids), {case.id: case for case in self.cases}
        missing = [name for name in ids if name not in known]
        if missing:
            raise InputError(
                f"{self.path}: case '{missing[0]}' of the split is not in this data set ({len(missing)} missing of "
                f"{len(self.cases)} present); use the data set that the split was made for."
            )
        return tuple(known[name] for name in ids)

    def select_labels(self, names: Sequence[str]) -> Dataset:
        """The same data set with these labels alone, numbered 1, 2, 3, ... in that order; the others are background.

        Raises:
            InputError: no name, a name twice, or one that the data set does not have.
        """
        at = {label.name: index for index, label in enumerate(self.labels)}
        wrong = [name for name in names if name not in at or list(names).count(name) > 1]
        if wrong or not names:
            raise InputError(
                f"{self.path}: the labels {list(names)!r:.200} cannot be chosen; name at least one of {', '.join(at)}, "
                "each once."
            )
        values = self.file_values or tuple(label.value for label in self.labels)
        kept = [at[name] for name in names]
        return replace(
            self,
            labels=tuple(self.labels[index].model_copy(update={"value": n}) for n, index in enumerate(kept, start=1)),
            file_values=tuple(values[index] for index in kept),
            unused=(*self.unused, *(value for index, value in enumerate(values) if index not in kept)),
        )


class Layout(Protocol):
    """A way to lay out a data set on disk."""

    @property
    def needs(self) -> str:
        """What a folder must hold to be of this layout, in a few words."""

    def recognises(self, path: Path) -> bool:
        """Whether the folder looks like this layout; a folder has one layout."""

    def open(self, path: Path) -> Dataset:
        """Read the data set's description; images stay on disk.

        Raises:
            InputError: something is missing or contradictory.
        """


LAYOUTS: Registry[Layout] = Registry("data set layout", "mskd.data.layouts")


def open_dataset(path: Path | str) -> Dataset:
    """Open a data set, recognising its layout.

    Raises:
        InputError: no such folder, no layout that knows it, or a fault in its description: two cases of one id, a file
            that is not there, no labelled case.
    """
    path = Path(path)
    if not path.is_dir():
        what = "this is a file" if path.is_file() else "there is no such folder"
        raise InputError(f"{path}: {what}; give the folder that holds the data set.")
    for name in LAYOUTS.names():
        if LAYOUTS[name].recognises(path):
            dataset = LAYOUTS[name].open(path)
            _require_sound(dataset)
            return dataset
    known = "; ".join(f"{name} ({LAYOUTS[name].needs})" for name in LAYOUTS.names())
    raise InputError(
        f"{path}: this folder has none of the known layouts, which are {known}; lay it out as one of them."
    )


def _require_sound(dataset: Dataset) -> None:
    repeated = [name for name, times in Counter(case.id for case in dataset.cases).items() if times > 1]
    if repeated:
        raise InputError(f"{dataset.path}: case '{min(repeated)}' is there more than once; keep one of them.")
    for case in dataset.cases:
        for file in (*case.images, *([case.labels] if case.labels else [])):
            if not file.exists():
                raise InputError(
                    f"{file}: the data set lists this file for case '{case.id}', but it is not there; restore it, or "
                    "remove the case."
                )
    if not dataset.labelled:
        raise InputError(f"{dataset.path}: no case has labels, so there is nothing to learn from; add label maps.")
