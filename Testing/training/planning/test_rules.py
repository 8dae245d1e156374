"""The rules that look at the data alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mskd.data import Case, Dataset, split_cases
from mskd.spec import Channel, Label
from mskd.training.planning import rules

GRID = ((64, 64, 64), (1.0, 1.0, 1.0))


def make_dataset(*names: str, modalities: tuple[str, ...] = ("CT",), patients: int = 3) -> Dataset:
    cases = tuple(Case(f"c{index}", (Path("x"),), Path("y"), f"p{index}") for index in range(patients))
    channels = tuple(Channel(name=name, modality=name) for name in modalities)
    labels = tuple(Label(value=value, name=name, color=(0, 0, 0)) for value, name in enumerate(names, start=1))
    return Dataset("d", Path("d"), channels, labels, cases)


@pytest.mark.parametrize(
    ("modalities", "name"), [(("CT",), "clip_zscore"), (("MR",), "zscore"), (("CT", "PT"), "zscore")]
)
def test_only_ct_has_a_unit_of_its_own(fingerprint: Callable, modalities: tuple, name: str) -> None:
    found, why = rules.choose_normalization(make_dataset("a", modalities=modalities), fingerprint([GRID]))
    assert found["name"] == name
    if name == "clip_zscore":
        assert found == {"name": name, "lower": -100.0, "upper": 150.0, "mean": 40.0, "std": 20.0}
    assert modalities[0] in why


@pytest.mark.parametrize(
    ("name", "sided"),
    [
        *[(name, True) for name in ("left kidney", "Right Lung", "kidney_left", "kidney_L", "LeftParotid", "atrium-r")],
        *[(name, False) for name in ("liver", "bright", "cleft", "Posterior", "all", "ventricle")],
    ],
)
def test_a_side_in_a_name_forbids_mirroring(fingerprint: Callable, name: str, sided: bool) -> None:
    facts = fingerprint([GRID] * 3, **{name: [{}] * 3})
    assert rules.choose_mirror(make_dataset(name), facts, "LPS")[0] == ([] if sided else ["x"])


@dataclass(frozen=True)
class Paired(Dataset):
    """A data set that knows which labels trade places."""

    mirror_pairs: tuple[tuple[int, int], ...] = ((1, 2),)


def test_partners_trade_places(fingerprint: Callable) -> None:
    plain = make_dataset("left kidney", "right kidney")
    facts = fingerprint([GRID] * 3, **{"left kidney": [{"place": 0.8}] * 3, "right kidney": [{"place": 0.2}] * 3})
    mirror, why = rules.choose_mirror(Paired(**vars(plain)), facts, "LPS")
    assert mirror == ["x"]
    assert "trade places" in why


def test_a_label_on_one_side_forbids_mirroring(fingerprint: Callable) -> None:
    def mirrored(*places: float, orientation: str = "LPS") -> list[str]:
        facts = fingerprint([GRID] * len(places), liver=[{"place": place} for place in places])
        return list(rules.choose_mirror(make_dataset("liver"), facts, orientation)[0])

    assert mirrored(0.3, 0.3, 0.35) == []
    assert mirrored(0.2, 0.8, 0.2, 0.8) == ["x"]  # lesions on either side
    assert mirrored(0.5, 0.5, orientation="PSL") == ["z"]  # the axis that runs left to right there


def test_thick_slices_limit_rotation() -> None:
    assert rules.choose_rotation((1.0, 1.0, 1.0), (64, 64, 64))[0] == 15
    assert rules.choose_rotation((7.7, 1.25, 1.25), (16, 160, 160))[0] == 7  # atan(1.5 * 7.7 / 100)
    assert rules.choose_rotation((9.0, 1.0, 1.0), (16, 32, 32))[0] == 15
    assert rules.choose_rotation((1.0, 1.0), (64, 64))[0] == 15


def test_labels_in_pieces_keep_them(fingerprint: Callable) -> None:
    pieces = [{"largest_piece": 1.0}] * 19 + [{"largest_piece": 0.6}]
    facts = fingerprint([GRID] * 20, liver=pieces, lesion=[{"largest_piece": 0.6}] * 2 + pieces[:18])
    assert rules.choose_single_pieces(make_dataset("liver", "lesion", "absent"), facts)[0] == ["liver"]


@pytest.mark.parametrize("patients", [*range(1, 40), 115, 1000])
def test_the_planned_shares_can_be_drawn(patients: int) -> None:
    dataset = make_dataset("a", patients=patients)
    split = split_cases(dataset, 0, rules.choose_validation(patients)[0], rules.choose_test(patients)[0])
    assert len(split.train) >= max(1, patients // 2)
    assert len(split.validation) == (
        0 if patients < 3 else 1 if patients < 8 else min(20, max(2, round(patients / 10)))
    )
    assert len(split.test) <= 40
