"""The Medical Segmentation Decathlon's layout: ``dataset.json``, ``imagesTr/``, ``labelsTr/``, optional ``imagesTs/``.

Source: Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 (2022).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mskd.data.dataset import LAYOUTS, Case, Dataset, make_labels
from mskd.errors import InputError
from mskd.spec import Channel

MODALITIES = {"mr": "MR", "mri": "MR", "t1": "MR", "t2": "MR", "flair": "MR", "ct": "CT", "pet": "PT"}


class DecathlonLayout:
    """One file per case: several channels are a 4-D image upstream, which is refused when it is read."""

    def recognises(self, path: Path) -> bool:
        description = path / "dataset.json"
        return description.is_file() and "training" in _read(description)

    def open(self, path: Path) -> Dataset:
        source = path / "dataset.json"
        description = _read(source)
        labelled = tuple(_case(path, entry) for entry in description["training"])
        unlabelled = tuple(_case(path, {"image": entry}) for entry in description.get("test", ()))
        cases = (*labelled, *unlabelled)
        if not labelled:
            raise InputError(f"{source}: 'training' lists no case; there is nothing to learn from.")
        repeated = {case.id for case in cases if sum(other.id == case.id for other in cases) > 1}
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


def _case(path: Path, entry: dict[str, Any] | str) -> Case:
    entry = {"image": entry} if isinstance(entry, str) else entry
    image = path / str(entry["image"])
    labels = path / str(entry["label"]) if "label" in entry else None
    for file in filter(None, (image, labels)):
        if not file.is_file():
            raise InputError(f"{file}: dataset.json lists this file, but it is not there; restore it or remove it.")
    name = image.name.split(".nii")[0].split(".nrrd")[0]
    return Case(id=name, images=(image,), labels=labels, patient=str(entry.get("patient", name)))


def _channels(source: Path, description: dict[str, Any]) -> tuple[Channel, ...]:
    names = description.get("modality", description.get("channel_names", {"0": "unknown"}))
    if not isinstance(names, dict) or not names:
        raise InputError(f'{source}: \'modality\' must map channel numbers to names, like {{"0": "CT"}}.')
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
        number, name = (int(key), str(value)) if str(key).isdigit() else (int(value), str(key))
        if number > 0:
            names[number] = name
    if sorted(names) != list(range(1, len(names) + 1)):
        raise InputError(f"{source}: label values are {sorted(names)}; they must be 1, 2, 3, ... without a gap.")
    return names
