"""Left and right in names: what pairs, what has no partner, and what only looks like a side."""

from __future__ import annotations

import pytest

from mskd.data.sides import mirror_pairs, one_sided, side_of
from mskd.spec import Label

NO_SIDES = (
    *("Cleft", "Bright", "leftover", "upright", "copyright", "liver", "lung", "larynx", "Rectum", "T1R1", ""),
    *("vertebrae_L5", "L5", "L 5", "l5 disc", "LV", "RV", "left and right kidney", "Lungs (left+right)"),
)


def labels(*names: str) -> list[Label]:
    return [Label(value=value, name=name, color=(0, 0, 0)) for value, name in enumerate(names, start=1)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left kidney", "right kidney"),
        ("LeftParotid", "RightParotid"),
        ("Kidney_L", "Kidney_R"),
        ("L kidney", "R kidney"),
        ("LParotid", "RParotid"),
        ("adrenal gland (left)", "adrenal gland (right)"),
        ("Left-Hippocampus", "Right-Hippocampus"),
        ("kidney_left", "kidney_right"),
        ("rib_left_1", "rib_right_1"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("Parotid_Lt", "Parotid_Rt"),
        ("LEFT KIDNEY", "right kidney"),
        ("leftkidney", "rightkidney"),
        ("kidneyleft", "kidneyright"),
        ("left", "right"),
        ("Niere Größe, left", "Niere Größe, right"),
        ("left femur", "Femur (R)"),
    ],
)
def test_sides_trade_places(left: str, right: str) -> None:
    assert mirror_pairs(labels("liver", right, left)) == ((3, 2),)
    assert one_sided(labels("liver", right, left)) == ()


@pytest.mark.parametrize("name", NO_SIDES)
def test_what_only_looks_like_a_side_is_none(name: str) -> None:
    assert side_of(name) is None


def test_near_misses_never_pair() -> None:
    assert mirror_pairs(labels("Cleft", "Bright", "leftover", "LV", "RV", "L1", "R1")) == ()


def test_a_side_without_its_partner_is_reported() -> None:
    found = labels("left kidney", "lung_middle_lobe_right", "left lung", "right lung", "aorta")
    assert mirror_pairs(found) == ((3, 4),)
    assert [label.value for label in one_sided(found)] == [1, 2]


def test_two_labels_of_one_side_are_no_pair() -> None:
    found = labels("left kidney", "Kidney_L", "right kidney")
    assert mirror_pairs(found) == ()
    assert [label.value for label in one_sided(found)] == [1, 2, 3]
