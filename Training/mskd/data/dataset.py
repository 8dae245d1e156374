"""What a data set is, whatever its layout on disk, and how one is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mskd.data.parts import Part
from mskd.errors import InputError
from mskd.registry import Registry
from mskd.spec import Channel, Label

# Okabe and Ito's palette (2008) without its black: told apart by colour-blind eyes too.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


@dataclass(frozen=True)
class Case:
    """One examination: its image files (one a channel), its label file if it has one, and whose it is.

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
        parts: The split that the data set comes with: case ids of "train", "validation" and "test", as far as it says.
    """

    name: str
    path: Path
    channels: tuple[Channel, ...]
    labels: tuple[Label, ...]
    cases: tuple[Case, ...]
    licence: str = ""
    citation: str = ""
    parts: Mapping[Part, tuple[str, ...]] = field(default_factory=dict)

    @property
    def labelled(self) -> tuple[Case, ...]:
        """The cases that can be learnt from and measured on."""
        return tuple(case for case in self.cases if case.labels is not None)

    @property
    def unlabelled(self) -> tuple[Case, ...]:
        """The cases that only a teacher can explain."""
        return tuple(case for case in self.cases if case.labels is None)

    def select(self, ids: Iterable[str]) -> tuple[Case, ...]:
        """The cases of these ids, in that order.

        Raises:
            InputError: an id that the data set does not have.
        """
        known = {case.id: case for case in self.cases}
        missing = [name for name in ids if name not in known]
        if missing:
            raise InputError(
                f"{self.path}: case '{missing[0]}' of the split is not in this data set ({len(missing)} missing of "
                f"{len(self.cases)} present); use the data set that the split was made for."
            )
        return tuple(known[name] for name in ids)


class Layout(Protocol):
    """A way to lay out a data set on disk."""

    def recognises(self, path: Path) -> bool:
        """Whether the folder looks like this layout."""

    def open(self, path: Path) -> Dataset:
        """Read the data set's description; images stay on disk.

        Raises:
            InputError: something is missing or contradictory.
        """


LAYOUTS: Registry[Layout] = Registry("data set layout", "mskd.data.layouts")


def open_dataset(path: Path | str) -> Dataset:
    """Open a data set, recognising its layout.

    Raises:
        InputError: no such folder, no layout that knows it, or a fault in its description.
    """
    path = Path(path)
    if not path.is_dir():
        what = "this is a file" if path.is_file() else "there is no such folder"
        raise InputError(f"{path}: {what}; give the folder that holds the data set.")
    for name in LAYOUTS.names():
        if LAYOUTS[name].recognises(path):
            return LAYOUTS[name].open(path)
    raise InputError(
        f"{path}: this folder has none of the known layouts ({', '.join(LAYOUTS.names())}); "
        "for the Medical Segmentation Decathlon's, it needs dataset.json, imagesTr/ and labelsTr/."
    )


def make_labels(names: dict[int, str]) -> tuple[Label, ...]:
    """Labels in order of value, with distinct colours of a palette that colour-blind eyes can read."""
    return tuple(
        Label(value=value, name=name, color=PALETTE[(value - 1) % len(PALETTE)])
        for value, name in sorted(names.items())
    )
