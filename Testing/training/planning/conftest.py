"""Fingerprints made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mskd.training.planning.measure import CaseFacts, ChannelFacts, DataFingerprint, LabelFacts


@pytest.fixture
def fingerprint() -> Callable[..., DataFingerprint]:
    """Makes one of (shape, spacing) pairs; ``labels`` maps names to what each case says of them."""

    def make(grids: list[tuple[tuple, tuple]], **labels: list[dict[str, Any]]) -> DataFingerprint:
        channel = ChannelFacts(mean=40.0, std=20.0, low=-100.0, high=150.0)
        plain = {"voxels": 1000, "millilitres": 100.0, "largest_piece": 1.0, "place": 0.5}
        cases = tuple(
            CaseFacts(
                id=f"case_{index}",
                orientation="LPS",
                shape=shape,
                spacing=spacing,
                channels=(channel,),
                labels={name: LabelFacts(**{**plain, **found[index]}) for name, found in labels.items()},
            )
            for index, (shape, spacing) in enumerate(grids)
        )
        return DataFingerprint(dataset="by hand", cases=cases, channels=(channel,))

    return make
