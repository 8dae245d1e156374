"""The inputs and settings of the golden numbers: everything from formulas, nothing from a random generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle

DEFAULTS: dict[str, dict[str, Any]] = {
    "kd": {"temperature": 4.0},
    "ffd": {
        **{"theta": 0.6, "gamma": 0.6, "filter": "teacher"},
        **{"correctness": True, "region_normalisation": True, "background": 0.5},
    },
    "rgd": {
        **{"theta": 0.6, "gamma": 0.6, "filter": "teacher", "nodes": ["class", "split"], "patches": 2},
        **{"background": "ring", "ln": 1.0, "le": 1.0, "lh": 1.0, "temperature": 0.2, "hops": 2},
    },
}
SWITCHES: dict[str, list[dict[str, Any]]] = {
    "kd": [{}, {"temperature": 1.0}],
    "ffd": [
        {},
        {"theta": 0.5},
        {"theta": 0.7, "gamma": 2.0},
        {"filter": "inverted"},
        {"filter": "none"},
        {"correctness": False},
        {"region_normalisation": False},
        {"background": 0.0},
    ],
    "rgd": [
        {},
        {"nodes": ["class"]},
        {"nodes": ["split"]},
        {"nodes": ["patch"], "patches": 3},
        {"nodes": ["class", "split", "patch"]},
        {"background": "all"},
        {"background": "none"},
        {"ln": 0.0, "lh": 0.0},
        {"ln": 0.0, "le": 0.0},
        {"le": 0.0, "lh": 0.0},
        {"hops": 1, "temperature": 0.5},
        {"filter": "none"},
    ],
}
SECTIONS = [{}, {"regions": "mask"}, {"regions": "saliency"}, {"n_min": 8.0}]


@dataclass(frozen=True)
class Volume:
    """One level of one batch: features on the grid, logits and labels on the voxels."""

    student: np.ndarray
    teacher: np.ndarray
    student_logits: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    strides: tuple[int, ...]


def waves(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Numbers between -1 and 1 without visible order."""
    index = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    return np.modf(np.sin(12.9898 * (index + 1) + 78.233 * seed) * 4375.85453)[0]


def volume(dim: int, *, labelled: str = "all") -> Volume:
    """Three classes; item 1 lacks class 2, item 2 has no foreground. ``labelled``: all, none, or part of the voxels."""
    shape, strides = {2: ((15, 12), (2, 2)), 3: ((8, 9, 7), (2, 1, 2))}[dim]
    grid = tuple(-(-side // step) for side, step in zip(shape, strides, strict=True))
    axes = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    blob = sum((axis - side / 2.3) ** 2 for axis, side in zip(axes, shape, strict=True)) < (9 if dim == 3 else 16)
    corner = np.all([axis < 3 for axis in axes], axis=0)
    first = np.where(corner, 2, np.where(blob, 1, 0))
    labels = np.stack([first, np.where(blob, 1, 0), np.zeros(shape, int)]).astype(np.int64)
    logits = waves((3, 3, *shape), 3) + 2.0 * np.stack([labels == k for k in range(3)], axis=1)
    student, teacher = waves((3, 4, *grid), 1), waves((3, 5, *grid), 2)
    # Smooth structure on the noise, so that nodes differ from one another.
    ramp = np.linspace(0, 1, grid[0]).reshape(-1, *[1] * (dim - 1))
    student, teacher = student + ramp * waves((3, 4, *[1] * dim), 5), teacher + ramp * waves((3, 5, *[1] * dim), 6)
    if labelled == "none":
        labels = np.full_like(labels, 255)
    elif labelled == "part":
        labels = np.where(axes[0] < shape[0] // 2, labels, -1)
    return Volume(student, teacher, waves((3, 3, *shape), 4), logits, labels, strides)


def cases() -> dict[str, dict[str, Any]]:
    """Name -> method, dim, labelled, section settings and term settings."""
    found = {}
    for dim in (2, 3):
        for method, switches in SWITCHES.items():
            for index, switch in enumerate(switches):
                found[f"{method}-{dim}d-{index}"] = _case(method, dim, "all", {}, switch)
            for index, section in enumerate(SECTIONS[1:] if method != "kd" else []):
                found[f"{method}-{dim}d-section-{index}"] = _case(method, dim, "all", section, {})
            for labelled in ("none", "part"):
                found[f"{method}-{dim}d-{labelled}"] = _case(method, dim, labelled, {}, {})
    return found


def _case(method: str, dim: int, labelled: str, section: dict[str, Any], switch: dict[str, Any]) -> dict[str, Any]:
    return {"method": method, "dim": dim, "labelled": labelled, "section": section, "term": switch}


def expected(case: dict[str, Any]) -> float:
    """The oracle's number for a case."""
    data = volume(case["dim"], labelled=case["labelled"])
    term = {**DEFAULTS[case["method"]], **case["term"]}
    if case["method"] == "kd":
        return oracle.kd(data.student_logits, data.logits, term["temperature"])
    section = {"mode": case["section"].get("regions", "hybrid"), "n_min": case["section"].get("n_min", 1.0)}
    filters = {key: term.pop(key) for key in ("theta", "gamma", "filter")}
    items = [
        oracle.Item(*parts, data.strides, **section, **filters)
        for parts in zip(data.student, data.teacher, data.logits, data.labels, strict=True)
    ]
    if case["method"] == "ffd":
        return oracle.ffd(items, **term)
    return oracle.rgd(items, np.eye(5, 4), nodes_of=term.pop("nodes"), **term)
