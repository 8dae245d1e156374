"""A plain folder: ``images/``, optional ``labels/`` with the same names, and optional small tables beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mskd.data.dataset import LAYOUTS, Case, Dataset
from mskd.data.folders import (
    CHANNEL_NUMBER,
    images_in,
    patients_of,
    read_table,
    require_channels,
    require_no_stray_labels,
    split_channels,
)
from mskd.data.legend import make_channels, make_legend
from mskd.errors import InputError
from mskd.image.read import FORMATS, read_labels


class FolderLayout:
    """Any readable format, a folder of DICOM files per case too; what has no labels is unlabelled.

    ``labels``, ``channels`` and ``patients``, each ``.csv`` or ``.json``, name label values, channels and whose a case
    is. Without the first, labels are named by the values that all label files together hold.
    """

    needs = "images/, labels/ with the same file names, no dataset.json"

    def recognises(self, path: Path) -> bool:
        return (path / "images").is_dir() and not (path / "dataset.json").is_file()

    def open(self, path: Path) -> Dataset:
        labels = images_in(path / "labels") if (path / "labels").is_dir() else {}
        images = _images(path / "images", labels)
        require_no_stray_labels(labels, images)
        named = read_table(path, "channels")
        count = max(map(len, images.values()))
        channels = make_channels(*(named or (path, {str(number): f"channel {number}" for number in range(count)})))
        require_channels(path, images, len(channels) if named and count > 1 else count)
        legend = make_legend(*(read_table(path, "labels") or (path / "labels", _values_found(labels.values()))))
        patients = patients_of(*(read_table(path, "patients") or (path, {})), images)
        return Dataset(
            name=path.resolve().name,
            path=path,
            channels=channels,
            labels=legend.labels,
            file_values=legend.file_values,
            ignore=legend.ignore,
            cases=tuple(Case(name, files, labels.get(name), patients[name]) for name, files in images.items()),
        )


LAYOUTS.register("folder")(FolderLayout())


def _images(folder: Path, labels: dict[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Case -> its files. ``a_0000`` is channel 0 of case ``a`` if the labels are called ``a``, else a case itself."""
    files = images_in(folder, dicom=True)
    if not files:
        raise InputError(f"{folder}: there is no image in this folder; put one there for each case: {FORMATS}.")
    cases = {match[1] for match in map(CHANNEL_NUMBER.fullmatch, files) if match}
    if cases & labels.keys() and not files.keys() & labels.keys():
        return split_channels(folder, files)
    return {name: (file,) for name, file in files.items()}


def _values_found(files: Iterable[Path]) -> dict[int, str]:
    found = {int(value) for file in files for value in np.unique(read_labels(file).array)}
    return {value: f"label {value}" for value in sorted(found - {0})}
