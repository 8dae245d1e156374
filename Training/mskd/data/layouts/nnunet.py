"""nnU-Net v2's raw layout: ``dataset.json``, ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``, ``imagesTs/``.

Source: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mskd.data.dataset import LAYOUTS, Case, Dataset
from mskd.data.folders import (
    images_in,
    patients_of,
    read_json,
    require_channels,
    require_labels,
    require_no_stray_labels,
    split_channels,
)
from mskd.data.legend import make_channels, make_legend
from mskd.errors import InputError
from mskd.image.read import IMAGE_SUFFIXES

Files = dict[str, tuple[Path, ...]]


class NnUNetLayout:
    """One image file per channel. ``imagesTs`` are unlabelled cases; test labels, if they lie there, are not read.

    Beyond nnU-Net's own keys, ``patients`` in the description may map cases to patients.
    """

    needs = "dataset.json with 'file_ending', imagesTr/CASE_0000..., labelsTr/"

    def recognises(self, path: Path) -> bool:
        source = path / "dataset.json"
        return source.is_file() and "file_ending" in read_json(source)

    def open(self, path: Path) -> Dataset:
        source = path / "dataset.json"
        description = read_json(source)
        legend = make_legend(source, description.get("labels"))
        channels = make_channels(source, description.get("channel_names", description.get("modality")))
        suffix = _suffix(source, description)
        images, labels = _listed(path, description) or _found(path, suffix)
        unlabelled = _in_folder(path / "imagesTs", suffix) if (path / "imagesTs").is_dir() else {}
        require_channels(source, {**images, **unlabelled}, len(channels))
        patients = patients_of(source, description.get("patients", {}), [*images, *unlabelled])
        cases = [Case(name, images[name], labels[name], patients[name]) for name in images]
        cases += [Case(name, files, None, patients[name]) for name, files in unlabelled.items()]
        return Dataset(
            name=str(description.get("name", path.name)),
            path=path,
            channels=channels,
            labels=legend.labels,
            file_values=legend.file_values,
            ignore=legend.ignore,
            cases=tuple(cases),
            licence=str(description.get("licence", description.get("license", ""))),
            citation=str(description.get("reference", "")),
        )


LAYOUTS.register("nnunet")(NnUNetLayout())


def _suffix(source: Path, description: dict[str, Any]) -> str:
    suffix = description["file_ending"]
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"{source}: 'file_ending' is {suffix!r:.40}; images are read from {', '.join(IMAGE_SUFFIXES)}, so convert "
            "them."
        )
    return str(suffix)


def _in_folder(folder: Path, suffix: str) -> Files:
    return split_channels(folder, images_in(folder, (suffix,)))


def _found(path: Path, suffix: str) -> tuple[Files, dict[str, Path]]:
    """Images and labels as they lie in the folders, each image with its labels."""
    images, labels = _in_folder(path / "imagesTr", suffix), images_in(path / "labelsTr", (suffix,))
    require_no_stray_labels(labels, images)
    require_labels({name: files[0] for name, files in images.items()}, labels, path / "imagesTs")
    return images, labels


def _listed(path: Path, description: dict[str, Any]) -> tuple[Files, dict[str, Path]] | None:
    """Images and labels as the optional key ``dataset`` lists them, wherever they lie."""
    listed = description.get("dataset")
    if listed is None:
        return None
    images, labels = {}, {}
    for name, entry in listed.items() if isinstance(listed, Mapping) else [("", listed)]:
        files = entry.get("images") if isinstance(entry, Mapping) else None
        if not isinstance(files, list) or not files or not isinstance(entry.get("label"), str):
            raise InputError(
                f"{path / 'dataset.json'}: 'dataset' has the entry {entry!r:.60}; a case is written "
                '"case": {"images": ["x_0000.nii.gz"], "label": "x.nii.gz"}.'
            )
        images[name], labels[name] = tuple(path / str(file) for file in files), path / entry["label"]
    return images, labels
