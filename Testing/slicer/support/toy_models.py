"""Model folders that the panel can list: a ``model.json`` and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def _code(value: str, meaning: str) -> dict[str, str]:
    return {"scheme": "SCT", "value": value, "meaning": meaning}


TISSUE = _code("123037004", "Anatomical Structure")
LABELS: list[dict[str, Any]] = [
    {
        "value": 1,
        "name": "Left kidney",
        "color": [185, 102, 83],
        "terminology": {
            "category": TISSUE,
            "type": _code("64033007", "Kidney"),
            "type_modifier": _code("7771000", "Left"),
        },
    },
    {
        "value": 2,
        "name": "Spleen",
        "color": [157, 108, 162],
        "terminology": {"category": TISSUE, "type": _code("78961009", "Spleen")},
    },
    {"value": 3, "name": "Lesion", "color": [10, 20, 30]},
]


def write_model(folder: Path, name: str, **changes: Any) -> Path:
    """Write ``folder/name/model.json`` and return that model folder."""
    manifest = {
        "schema_version": "1.0",
        "name": name,
        "title": f"Toy {name}",
        "description": "Two organs and a lesion in abdominal MR.",
        "channels": [{"name": "image", "modality": "MR"}],
        "labels": LABELS,
        "licence": "CC0-1.0",
        "intended_use": "Tests only.",
        **changes,
    }
    path = folder / name
    path.mkdir(parents=True)
    (path / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


def image(seed: int = 0) -> np.ndarray:
    """A small volume of noise."""
    return np.random.default_rng(seed).normal(size=(4, 5, 6)).astype(np.float32)
