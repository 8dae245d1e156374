"""The Medical Segmentation Decathlon's layout: ``dataset.json``, ``imagesTr/``, ``labelsTr/``, optional ``imagesTs/``.

Source: Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 (2022).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mskd.data.dataset import LAYOUTS, Case, Dataset
from mskd.data.folders import read_json
from mskd.data.legend import make_channels, make_legend
from mskd.data.parts import read_parts
from mskd.errors import InputError


class DecathlonLayout:
    """One image file per case: several channels are its fourth axis. Which cases there are, the description lists."""

    needs = "dataset.json that lists 'training', imagesTr/, labelsTr/"

    def recognises(self, path: Path) -> bool:
        source = path / "dataset.json"
        return source.is_file() and "training" in (keys := read_json(source)) and "file_ending" not in keys

    def open(self, path: Path) -> Dataset:
        source = path / "dataset.json"
        description = read_json(source)
        labelled = [_case(path, entry) for entry in _entries(source, description, "training")]
        unlabelled = [_case(path, entry, labelled=False) for entry in _entries(source, description, "test")]
        legend = make_legend(source, description.get("labels"))
        return Dataset(
            name=str(description.get("name", path.name)),
            path=path,
            channels=make_channels(
                source, description.get("modality", description.get("channel_names", {"0": "unknown"}))
            ),
            labels=legend.labels,
            file_values=legend.file_values,
            ignore=legend.ignore,
            cases=(*labelled, *unlabelled),
            licence=str(description.get("licence", description.get("license", ""))),
            citation=str(description.get("reference", "")),
            parts=read_parts(source, description, (case.id for case in (*labelled, *unlabelled))),
        )


LAYOUTS.register("msd")(DecathlonLayout())


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
    name = image.name.split(".nii")[0].split(".nrrd")[0]
    return Case(id=name, images=(image,), labels=labels, patient=str(entry.get("patient", name)))
