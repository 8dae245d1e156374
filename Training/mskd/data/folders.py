"""Files of a data set: folders of images, their names, and small tables beside them."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mskd.errors import InputError
from mskd.image.read import IMAGE_SUFFIXES, image_stem

CHANNEL_NUMBER = re.compile(r"(.+)_(\d{4})")


def read_json(source: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        InputError: it is not there, no JSON, or holds something else.
    """
    try:
        description = json.loads(source.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as fault:
        raise InputError(f"{source}: this is not readable JSON ({fault}); restore it from the data set.") from fault
    if not isinstance(description, dict):
        raise InputError(f"{source}: the file holds a {type(description).__name__}; the layout asks for an object.")
    return description


def read_table(folder: Path, name: str) -> tuple[Path, dict[str, Any]] | None:
    """A table of two columns: ``NAME.json`` (an object) or ``NAME.csv``; None where there is neither.

    Raises:
        InputError: both are there, or one that is not readable.
    """
    found = [path for path in (folder / f"{name}.json", folder / f"{name}.csv") if path.is_file()]
    if len(found) > 1:
        raise InputError(f"{found[0]}: {found[1].name} is there too; keep one of the two.")
    if not found:
        return None
    source = found[0]
    if source.suffix == ".json":
        return source, read_json(source)
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    except (OSError, ValueError, csv.Error) as fault:
        raise InputError(f"{source}: this is no readable CSV ({fault}); save it as UTF-8 text.") from fault
    odd = next((row for row in rows if len(row) != 2), None)
    if odd is not None or len({row[0] for row in rows}) < len(rows):
        what = f"the row {odd!r:.80}" if odd is not None else "one first entry in two rows"
        raise InputError(f"{source}: has {what}; each row holds two entries, the first different in each row.")
    return source, dict(rows)


def images_in(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES, *, dicom: bool = False) -> dict[str, Path]:
    """Name without suffix -> file, in order of name, of the images directly in a folder. Hidden files are passed over.

    Args:
        dicom: Take each folder for an image too (of DICOM files).

    Raises:
        InputError: no such folder, or two files of the same name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; this layout needs it.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem = path.name if dicom and path.is_dir() else image_stem(path)
        if path.name.startswith(".") or not stem or not (path.is_dir() or path.name.lower().endswith(suffixes)):
            continue
        if stem in found:
            raise InputError(f"{path}: {found[stem].name} has the same name; keep one of the two, or rename one.")
        found[stem] = path
    return found


def split_channels(folder: Path, files: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Case -> its files in order of channel, from names CASE_0000, CASE_0001, ...

    Raises:
        InputError: a name without a channel number, or a case whose numbers are not 0, 1, 2, ...
    """
    cases: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, path in files.items():
        parts = CHANNEL_NUMBER.fullmatch(stem)
        if parts is None:
            raise InputError(f"{path}: the name must end in the channel's number, as in {stem}_0000; rename the file.")
        cases[parts[1]][int(parts[2])] = path
    for name, channels in cases.items():
        if sorted(channels) != list(range(len(channels))):
            raise InputError(
                f"{folder}: case '{name}' has the channels {sorted(channels)}; they must be 0, 1, 2, ... without a "
                "gap, so add the missing file."
            )
    return {name: tuple(channels[number] for number in sorted(channels)) for name, channels in sorted(cases.items())}


def require_channels(source: Path, images: Mapping[str, tuple[Path, ...]], count: int) -> None:
    """Refuse a case that has another number of files than there are channels."""
    for name, files in images.items():
        if len(files) != count:
            raise InputError(
                f"{source}: case '{name}' has {len(files)} of {count} channels; add or remove a file, or correct the "
                "channels of the data set."
            )


def require_no_stray_labels(labels: Mapping[str, Path], images: Iterable[str]) -> None:
    """Refuse a label file whose image is not there."""
    stray = sorted(labels.keys() - set(images))
    if stray:
        raise InputError(
            f"{labels[stray[0]]}: there is no image for these labels ({len(stray)} such files); add the image, or "
            "remove the labels."
        )


def require_labels(images: Mapping[str, Path], labels: Iterable[str], unlabelled: Path) -> None:
    """Refuse an image without labels; ``unlabelled`` is the folder that such images belong in."""
    bare = sorted(images.keys() - set(labels))
    if bare:
        raise InputError(
            f"{images[bare[0]]}: there are no labels for this image ({len(bare)} such cases); add them, or move the "
            f"image to {unlabelled}."
        )


def patients_of(source: Path, table: object, cases: Iterable[str]) -> dict[str, str]:
    """Case -> patient; a case that the table leaves out is a patient of its own.

    Raises:
        InputError: no table of names, or a case that is not there.
    """
    cases = list(cases)
    if not isinstance(table, Mapping) or not all(isinstance(value, (str, int)) for value in table.values()):
        raise InputError(f'{source}: the patients must map cases to patients, like {{"case_1": "p1"}}; correct them.')
    unknown = sorted(set(map(str, table)) - set(cases))
    if unknown:
        raise InputError(
            f"{source}: speaks of the patient of case '{unknown[0]}', which is not there; correct the name."
        )
    return {case: str(table.get(case, case)) for case in cases}
