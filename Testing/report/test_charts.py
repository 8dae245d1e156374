"""Curves: every family the run wrote, as SVG that is part of the page around it."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib.image
import numpy as np

from mskd.report.charts import INK, chart, curve_of, curves_of, heat_map, save_curves

ROWS = [
    {"step": 10, "loss/a": 100.0, "loss/<b> $\\frac{": 1.0, "dice/mean": None},
    {"step": 20, "loss/a": 1.0, "loss/<b> $\\frac{": math.nan, "dice/mean": 0.5},
]


def text(svg: str) -> list[str]:
    """What is written in an SVG; fails when it is no well-formed XML."""
    return ["".join(element.itertext()).strip() for element in ET.fromstring(svg).iter() if "text" in element.tag]


def test_a_curve_has_the_points_that_have_a_value() -> None:
    assert curve_of(ROWS, "dice/mean") == ([20], [0.5])
    assert curves_of(ROWS, "loss/") == {"a": ([10, 20], [100.0, 1.0]), "<b> $\\frac{": ([10], [1.0])}
    assert curves_of(ROWS, "gradient/") == {}


def test_a_chart_names_its_curves_and_takes_the_page_s_colour() -> None:
    svg = chart(curves_of(ROWS, "loss/"), "loss")
    assert {"a", "<b> $\\frac{", "loss", "step"} <= set(text(svg))
    assert "currentColor" in svg
    assert INK not in svg
    assert not {"width", "height"} & ET.fromstring(svg).attrib.keys()
    assert svg == chart(curves_of(ROWS, "loss/"), "loss")


def test_only_what_spans_decades_is_logarithmic() -> None:
    assert {"1", "10", "100"} <= set(text(chart({"a": ([1, 2], [1.0, 100.0])}, "loss")))
    narrow = text(chart({"a": ([1, 2], [1.0, 2.0])}, "loss"))
    assert {"1.2", "1.8"} <= set(narrow)


def test_many_classes_are_a_picture() -> None:
    names = [f"$organ{index}" for index in range(30)]
    assert set(names) <= set(text(heat_map(np.eye(30), names)))


def test_the_demo_s_picture_is_written_whole(tmp_path: Path) -> None:
    path = save_curves(tmp_path / "curves.png", {"teacher": ROWS, "$student": ROWS})
    assert matplotlib.image.imread(path).shape[:2] == (396, 1122)
    assert list(tmp_path.iterdir()) == [path]
