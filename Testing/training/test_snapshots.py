"""Pictures of validation cases for TensorBoard."""

from __future__ import annotations

import numpy as np

from mskd.data.prepared import PreparedCase
from mskd.spec import Label
from mskd.training.snapshots import snapshots

LABELS = (Label(value=1, name="red", color=(255, 0, 0)),)


def case(name: str, labelled: bool = True) -> PreparedCase:
    mask = np.zeros((4, 10, 12), np.uint8)
    mask[2, 2:6, 3:8] = 1
    image = np.random.default_rng(0).normal(size=(1, 4, 10, 12)).astype(np.float32)
    return PreparedCase(name, image, mask if labelled else None, (3.0, 1.0, 1.0), {})


def red(picture: np.ndarray) -> int:
    return int(np.sum((picture[..., 0] > 200) & (picture[..., 1:].max(axis=-1) < 60)))


def test_labelled_cases_are_drawn_with_what_was_found() -> None:
    nothing, moved = np.zeros((4, 10, 12), np.uint8), np.roll(case("x").labels, 2, axis=2)
    pictures = snapshots([(case("a"), moved), (case("b", labelled=False), moved), (case("c"), nothing)], LABELS)
    assert list(pictures) == ["overlay/a", "overlay/c"]
    assert red(pictures["overlay/a"]) > red(pictures["overlay/c"]) + 200
    assert snapshots([], LABELS) == {}
