"""Tables: what is averaged, what is left out, and what the files say."""

from __future__ import annotations

import json
import math

import pytest

from mskd.evaluation.metrics import ABSENT, Scores
from mskd.evaluation.table import METRICS, Row, Table, markdown_rows

ABOUT = {
    "model": {"name": "tiny", "version": "1.0.0", "fingerprint": "f" * 64},
    "dataset": {"name": "Blobs", "part": "test", "cases": ["a", "b", "c"]},
}


def scores(dice):
    return Scores(dice=dice, hd95=10 * (1 - dice), nsd=dice, volume_error_ml=dice - 1, volume_error_percent=-5.0)


@pytest.fixture
def table():
    found = {"a": (0.9, 0.5), "b": (0.7, None), "c": (0.8, 0.0)}
    rows = [
        Row(case, label, ABSENT if dice is None else scores(dice))
        for case, pair in found.items()
        for label, dice in zip(("liver", "spleen"), pair, strict=True)
    ]
    return Table(tuple(rows), ("liver", "spleen"), 1.0, ABOUT)


def test_mean_and_spread_by_hand(table):
    liver = table.summary("liver", "dice")
    assert (liver.mean, liver.std, liver.cases, liver.absent) == (pytest.approx(0.8), pytest.approx(0.1), 3, 0)
    assert liver.interval[0] == pytest.approx(0.7, abs=0.035)
    assert liver.interval[1] == pytest.approx(0.9, abs=0.035)


def test_an_absent_organ_is_left_out_and_counted_and_a_missed_one_is_not(table):
    spleen = table.summary("spleen", "dice")
    assert (spleen.mean, spleen.cases, spleen.absent) == (pytest.approx(0.25), 2, 1)


def test_the_mean_row_averages_each_case_over_the_labels_it_has(table):
    mean = table.summary("mean", "dice")
    assert mean.mean == pytest.approx((0.7 + 0.7 + 0.4) / 3)
    assert mean.cases == 3


def test_json_is_strict_json_and_complete(table):
    data = json.loads(json.dumps(table.as_json(), allow_nan=False))
    assert data["model"]["fingerprint"] == "f" * 64
    assert data["tolerance_mm"] == 1.0
    assert len(data["per_case"]) == 6
    assert data["per_case"][3] == {"case": "b", "label": "spleen", **dict.fromkeys(METRICS)}
    assert {(entry["label"], entry["metric"]) for entry in data["summary"]} == {
        (label, metric) for label in ("liver", "spleen", "mean") for metric in METRICS
    }
    assert set(data["units"]) == set(METRICS)


def test_a_label_that_no_case_has_gives_null_and_a_dash():
    table = Table((Row("a", "liver", ABSENT),), ("liver",), 2.0, ABOUT)
    assert table.as_json()["summary"][0]["mean"] is None
    assert "| liver | - | - | - | - | - | 0 (+1 absent) |" in table.as_markdown()
    assert math.isnan(table.summary("mean", "dice").mean)


def test_markdown_shows_units_spread_and_policy(table):
    text = table.as_markdown()
    assert "| Label | Dice | HD95 (mm) | NSD (1 mm) | Volume error (mL) | Volume error (%) | Cases |" in text
    assert "| liver | 0.800 ± 0.100 | 2.0 ± 1.0 | 0.800 ± 0.100 | -0.2 ± 0.1 | -5.0 ± 0.0 | 3 |" in text
    assert "2 (+1 absent)" in text
    assert "diagonal of the image" in text


def test_several_models_share_one_table(table):
    lines = markdown_rows({"teacher": table, "student": table})
    assert len(lines) == 2 + 2 * 3
    assert lines[2].startswith("| teacher | liver |")
    assert len({line.count("|") for line in lines}) == 1
