"""The contact sheet: flagged cases first and framed, one outline a label, as many pages as it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from mskd.data import open_dataset
from mskd.data.check import Report, check_dataset, sheet
from mskd.data.check.finding import Finding
from mskd.data.check.sheet import HEAD, MARGIN, write_sheets
from mskd.data.check.tile import TILE, best_slice, draw_tile
from mskd.data.legend import make_legend

RED = np.array([200, 16, 46]) / 255
STEP = TILE + MARGIN


@pytest.fixture(scope="module")
def report(clean: Path) -> Report:
    whole = check_dataset(open_dataset(clean), tiles=True)
    odd = Finding("class-volume", "warning", ("phantom_007",), "Too small.")
    note = Finding("islands", "note", ("phantom_003",), "Small.")
    return Report(whole.dataset, whole.cases, (odd, note))


def frames(path: Path) -> list[bool]:
    """For each tile of the first row, whether its left edge is red."""
    pixels = matplotlib.image.imread(path)[..., :3]
    columns = range(MARGIN, pixels.shape[1] - TILE, STEP)
    rows = slice(HEAD + 20, HEAD + TILE - 20)
    return [bool(np.abs(pixels[rows, left - 2] - RED).max() < 0.02) for left in columns]


def test_the_flagged_case_comes_first_in_red(report: Report, tmp_path: Path) -> None:
    (path,) = write_sheets(tmp_path, report)
    assert path == tmp_path / "contact-sheet.png"
    assert frames(path) == [True, False, False, False, False]
    shown = (255 * matplotlib.image.imread(path)[..., :3]).round().astype(np.uint8)
    tile = report.cases[7].tile
    assert tile is not None
    top = HEAD + (TILE - tile.shape[0]) // 2
    drawn = shown[top + 4 : top + tile.shape[0] - 4, MARGIN + 4 : MARGIN + TILE - 4]
    np.testing.assert_array_equal(drawn, tile[4:-4, 4:-4])


def test_many_cases_take_pages_and_old_pages_go(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, "PAGE", 5)
    (tmp_path / "contact-sheet-9.png").touch()
    (tmp_path / "mine.png").touch()
    pages = write_sheets(tmp_path, report)
    assert [path.name for path in pages] == ["contact-sheet.png", "contact-sheet-2.png", "contact-sheet-3.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"mine.png", *(path.name for path in pages)}
    assert any(frames(pages[0]))
    assert not any(frames(pages[1]))


def test_a_case_without_a_picture_leaves_a_grey_square(report: Report, tmp_path: Path) -> None:
    (path,) = write_sheets(tmp_path, replace(report, cases=(replace(report.cases[7], tile=None), *report.cases[:7])))
    square = matplotlib.image.imread(path)[HEAD + 9 : HEAD + TILE - 9, MARGIN + 9 : MARGIN + TILE - 9, :3]
    assert np.abs(square - 236 / 255).max() < 0.01


def test_a_tile_shows_each_label_in_its_colour_where_there_is_most() -> None:
    labels = np.zeros((8, 20, 20), np.uint8)
    labels[2, 4:16, 4:16] = 1
    labels[5, 4:14, 4:16] = 1
    labels[5, 14:16, 4:16] = 2
    labels[3] = 0
    names = make_legend(Path("set"), {1: "a", 2: "b"}).labels
    image = np.random.default_rng(0).normal(0, 1, labels.shape)
    assert best_slice(labels, 0) == 5
    tile = draw_tile(image, labels, names, (1.0, 1.0, 1.0))
    for label in names:
        assert (tile == label.color).all(axis=-1).any()


def test_thick_slices_are_shown_whole_and_in_proportion() -> None:
    image = np.zeros((6, 20, 30), np.float32)
    assert draw_tile(image, None, (), (1.0, 1.0, 1.0)).shape == (TILE * 20 // 30, TILE, 3)
    assert draw_tile(image, None, (), (1.0, 4.0, 1.0)).shape == (TILE * 6 // 30, TILE, 3)
