"""The Medical Segmentation Decathlon's layout: ``dataset.json``, ``imagesTr/``, ``labelsTr/``, optional ``imagesTs/``.

Source: Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 (2022).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mskd.data.dataset import LAYOUTS, Case, Dataset, make_labels
from mskd.data.parts import read_parts
from mskd.errors import InputError
from mskd.image.read import LARGEST_LABEL
from mskd.spec import Channel
from mskd.spec.labels import LONGEST_NAME

MOST_CHANNELS = 16
MODALITIES = {"mr": "MR", "mri": "MR", "t1": "MR", "t2": "MR", "flair": "MR", "ct": "CT", "pet": "PT"}


class DecathlonLayout:
    """One file per case: several channels are a 4-D image upstream, which is refused when it is read."""

    def recognises(self, path: Path) -> bool:
        description = path / "dataset.json"
        return description.is_file() and "training" in _read(description)

    def open(self, path: Path) -> Dataset:
        source = path / "dataset.json"
        description = _read(source)
        labelled = tuple(_case(path, entry) for entry in _entries(source, description, "training"))
        unlabelled = tuple(_case(path, entry, labelled=False) for entry in _entries(source, description, "test"))
        cases = (*labelled, *unlabelled)
        if not labelled:
            raise InputError(f"{source}: 'training' lists no case; there is nothing to learn from.")
        repeated = [name for name, times in Counter(case.id for case in cases).items() if times > 1]
        if repeated:
            raise InputError(f"{source}: case '{min(repeated)}' is listed more than once; keep one entry.")
        return Dataset(
            name=str(description.get("name", path.name)),
            path=path,
            channels=_channels(source, description),
            labels=make_labels(_label_names(source, description)),
            cases=cases,
            licence=str(description.get("licence", description.get("license", ""))),
            citation=str(description.get("reference", "")),
            parts=read_parts(source, description, (case.id for case in cases)),
        )


LAYOUTS.register("msd")(DecathlonLayout())


def _read(source: Path) -> dict[str, Any]:
    try:
        description = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise InputError(f"{source}: this is not readable JSON ({fault}); restore it from the data set.") from fault
    if not isinstance(description, dict):
        raise InputError(f"{source}: the file holds a {type(description).__name__}; the layout asks for an object.")
    return description


def _entries(source: Path, description: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """The cases that the file lists under ``training`` or ``test``; a bare path stands for an image without labels."""
    listed = description.get(part, [])
    if not isinstance(listed, list):
        raise InputError(f"{source}: '{part}' is {listed!r:.40}; it must be a list of cases.")
    entries = [{"image": entry} if isinstance(entry, str) else entry for entry in listed]
    for entry in entries:
        if not isinstance(entry, dict) or "image" not in entry:
            raise InputError(
                f"{source}: '{part}' has the entry {entry!r:.60}; a case is written "
                '{"image": "imagesTr/x.nii.gz", "label": "labelsTr/x.nii.gz"}.'
            )
    return entries


def _case(path: Path, entry: dict[str, Any], *, labelled: bool = True) -> Case:
    image = path / str(entry["image"])
    labels = path / str(entry["label"]) if labelled and "label" in entry else None
    for file in filter(None, (image, labels)):
        if not file.is_file():
            raise InputError(f"{file}: dataset.json lists this file, but it is not there; restore it or remove it.")
    name = image.name.split(".nii")[0].split(".nrrd")[0]
    return Case(id=name, images=(image,), labels=labels, patient=str(entry.get("patient", name)))


def _channels(source: Path, description: dict[str, Any]) -> tuple[Channel, ...]:
    names = description.get("modality", description.get("channel_names", {"0": "unknown"}))
    if not isinstance(names, dict) or not names:
        raise InputError(f'{source}: \'modality\' must map channel numbers to names, like {{"0": "CT"}}.')
    unnumbered = [key for key in names if not str(key).isdecimal()]
    if unnumbered or len(names) > MOST_CHANNELS:
        raise InputError(
            f"{source}: 'modality' has {len(names)} channels {sorted(names)!r:.60}; they are numbered 0, 1, 2, ... and "
            f"at most {MOST_CHANNELS}."
        )
    return tuple(
        Channel(name=str(name), modality=MODALITIES.get(str(name).lower(), "OT"))
        for _, name in sorted(names.items(), key=lambda item: int(item[0]))
    )


def _label_names(source: Path, description: dict[str, Any]) -> dict[int, str]:
    """Value -> name of the foreground labels, whichever way round the file writes them."""
    entries = description.get("labels")
    if not isinstance(entries, dict):
        raise InputError(f'{source}: \'labels\' must map label values to names, like {{"1": "liver"}}.')
    names: dict[int, str] = {}
    for key, value in entries.items():
        number, name = (key, value) if str(key).isdecimal() else (value, key)
        if not str(number).isdecimal() or not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME:
            raise InputError(
                f"{source}: 'labels' has the entry {key!r:.80}: {value!r:.80}; a label is one integer and a name of "
                f"1 to {LONGEST_NAME} characters."
            )
        if int(number) > 0:
            names[int(number)] = name
    if not names or sorted(names) != list(range(1, len(names) + 1)) or len(names) > LARGEST_LABEL:
        raise InputError(
            f"{source}: label values are {sorted(names)!r:.80}; they must be 1, 2, 3, ... without a gap, at most "
            f"{LARGEST_LABEL}."
        )
    repeated = [name for name, times in Counter(names.values()).items() if times > 1]
    if repeated:
        raise InputError(f"{source}: two labels are called '{repeated[0]}'; give each a name of its own.")
    return names
