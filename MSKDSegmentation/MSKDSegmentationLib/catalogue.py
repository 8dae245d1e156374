"""The models to choose from: each folder with a ``model.json``, read as plain JSON before anything is installed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import SegmentationError

MODELS_VARIABLE = "MSKD_MODELS"
SCHEMA_MAJOR = "1"


@dataclass(frozen=True)
class ModelEntry:
    """What the panel shows of a model.

    ``problem`` says why it cannot be used, and is empty when it can. ``view`` is what the network sees at once: side
    lengths in mm along R, A and S, or None where that is not fixed.
    """

    path: Path
    name: str
    title: str
    description: str = ""
    intended_use: str = ""
    licence: str = ""
    labels: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    view: tuple[float, float, float] | None = None
    problem: str = ""


def bundled_folder(module_folder: Path) -> Path:
    """Where the models that come with the extension lie."""
    return module_folder / "Resources" / "Models"


def model_folders(module_folder: Path) -> list[Path]:
    """The bundled folder, then those of the environment variable ``MSKD_MODELS`` (separated like ``PATH``)."""
    own = [Path(folder) for folder in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if folder]
    return [bundled_folder(module_folder), *own]


def find_models(folders: Iterable[Path]) -> list[ModelEntry]:
    """All models in ``folders``, each a sub-folder with a ``model.json``; of two with one name the first counts."""
    found: dict[str, ModelEntry] = {}
    for folder in folders:
        for manifest in sorted(folder.glob("*/model.json")):
            entry = read_entry(manifest.parent)
            found.setdefault(entry.name, entry)
    return list(found.values())


def read_entry(folder: Path) -> ModelEntry:
    """The model in ``folder``; one that cannot be read comes with its ``problem``, so that the panel can say it."""
    try:
        data = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        return _entry(folder, data)
    except OSError as failure:
        problem = f"model.json in '{folder}' cannot be read ({failure.strerror}); check the folder's permissions."
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        problem = f"model.json in '{folder}' is not a model description; copy the model again."
    return ModelEntry(folder, name=folder.name, title=folder.name, problem=problem)


def choose(models: Iterable[ModelEntry], model: str | os.PathLike[str]) -> ModelEntry:
    """The model of that name, or the one in that folder.

    Raises:
        SegmentationError: there is none, or it cannot be used.
    """
    by_name = {entry.name: entry for entry in models}
    entry = by_name.get(str(model))
    if entry is None and (Path(model) / "model.json").is_file():
        entry = read_entry(Path(model))
    if entry is None:
        known = ", ".join(sorted(by_name)) or "none"
        raise SegmentationError(f"There is no model '{model}'; give a model's folder or one of these names: {known}.")
    if entry.problem:
        raise SegmentationError(entry.problem)
    return entry


def _entry(folder: Path, data: dict[str, Any]) -> ModelEntry:
    channels = tuple(str(channel["modality"]) for channel in data["channels"])
    version = str(data.get("schema_version", ""))
    problem = ""
    if version.split(".")[0] != SCHEMA_MAJOR:
        problem = (
            f"Model '{folder.name}' has schema version {version or 'none'}, this extension reads {SCHEMA_MAJOR}.x; "
            "update MSKD."
        )
    elif len(channels) != 1:
        problem = f"Model '{folder.name}' takes {len(channels)} images; this panel gives one. Use the mskd command."
    return ModelEntry(
        path=folder,
        name=str(data["name"]),
        title=str(data["title"]),
        description=str(data.get("description", "")),
        intended_use=str(data.get("intended_use", "")),
        licence=str(data.get("licence", "")),
        labels=tuple(str(label["name"]) for label in data["labels"]),
        modalities=channels,
        view=_view(data),
        problem=problem,
    )


def _view(data: dict[str, Any]) -> tuple[float, float, float] | None:
    patch, spacing = data.get("patch") or [], data.get("spacing") or []
    if len(patch) != 3 or len(spacing) != 3 or None in spacing:
        return None
    sides = {}
    # The manifest counts z, y, x; its orientation names where x, y and z point.
    for letter, voxels, millimetres in zip(
        str(data.get("orientation", "LPS")), patch[::-1], spacing[::-1], strict=True
    ):
        sides["LRPAIS".index(letter) // 2] = float(voxels * millimetres)
    return sides[0], sides[1], sides[2]
