"""Which labels are the two sides of one organ."""

from __future__ import annotations

import pytest

from mskd.data.check.sides import side_pairs
from mskd.data.dataset import make_labels


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("right kidney", "left kidney"), 1),
        (("LeftParotid", "RightParotid"), 1),
        (("lung_upper_lobe_left", "lung_upper_lobe_right", "lung_lower_lobe_right"), 1),
        (("Hip (L)", "Hip (R)"), 1),
        (("L3", "R3"), 0),
        (("left kidney", "right lung"), 0),
        (("leftover", "rightover"), 0),
        (("left", "right"), 1),
    ],
)
def test_pairs_are_found_by_name(names: tuple[str, ...], pairs: int) -> None:
    found = side_pairs(make_labels(dict(enumerate(names, 1))))
    assert len(found) == pairs
    for left, right in found:
        assert "l" in left.name.lower()
        assert left.name.lower().replace("left", "right").replace("(l)", "(r)") == right.name.lower()
