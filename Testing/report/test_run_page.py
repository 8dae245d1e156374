"""`mskd report RUN`: what the page shows of a run that is finished, going on, moved, or faulty."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mskd.cli import main
from mskd.data import Split
from mskd.evaluation.metrics import ABSENT, Scores
from mskd.evaluation.table import Row, Table
from mskd.report.examine import ranked
from mskd.report.results import per_case

VOID = {"meta", "img", "br", "image", "path", "rect", "use"}


class Reader(HTMLParser):
    """Collects elements, and fails on one that is closed twice, never, or in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def report(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, arguments), "--device", "cpu"])
    return int(ended.value.code or 0)


def read(path: Path) -> str:
    """The page, after it was found whole, self-contained and free of foreign elements."""
    page = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("script") == 1
    for tag, attributes in reader.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:image/png;base64,", "#")), (tag, target)
    return page


def test_a_finished_run_shows_everything(run: Path) -> None:
    assert report(run) == 0
    page = read(run / "report.html")
    split = Split.load(run / "split.json")
    for case in split.validation:
        assert html.escape(case) in page
    for case in (*split.test, *split.train):
        assert html.escape(case) not in page
    assert page.count("<svg") == 6  # Dice, loss, gradients, learning rate, seconds per step, waiting
    assert page.count("data:image/png;base64,") == 2  # best and worst of two cases
    for heading in ("What was run", "Curves", "Examples", "Which organ is taken for which", "Every case"):
        assert heading in page
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    for fact in ("light_unet", settings["recipe_sha256"][:12], settings["data_fingerprint"][:12], "after 6 of 6 steps"):
        assert fact in page
    assert '<section class="card warn">' not in page


def test_test_cases_are_read_only_when_asked(run: Path, hostile_dataset: Path, tmp_path: Path) -> None:
    test = Split.load(run / "split.json").test
    for case in test:
        (hostile_dataset / "imagesTr" / f"{case}.nii.gz").write_bytes(b"not an image")
    assert report(run, "--output", tmp_path / "validation.html") == 0
    assert "could not be segmented" not in read(tmp_path / "validation.html")
    assert report(run, "--output", tmp_path / "test.html", "--split", "test") == 0
    page = read(tmp_path / "test.html")
    assert "The test cases could not be segmented" in page
    assert "<h2>Curves</h2>" in page


def test_a_run_without_a_model_gets_its_curves(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "model")
    (run / "problems.jsonl").write_text('{"step": 3, "why": "<b>NaN"}\nnot json\n', encoding="utf-8")
    assert report(run) == 0
    page = read(run / "report.html")
    assert "There is no model package yet" in page
    assert "&lt;b&gt;NaN" in page
    assert "problems.jsonl: 1 of 2 lines cannot be read" in page
    assert page.count("<svg") == 6
    assert "Examples" not in page
    assert "There is no model package yet" in capsys.readouterr().err
    for name in ("metrics.jsonl", "split.json", "problems.jsonl"):
        (run / name).unlink()
    assert report(run) == 0
    assert "There are no metrics yet" in read(run / "report.html")


def test_a_data_set_that_moved_is_found_where_it_is_said_to_be(run: Path, hostile_dataset: Path) -> None:
    moved = hostile_dataset.rename(hostile_dataset.with_name("moved"))
    assert report(run) == 0
    assert "say with --dataset where it lies now" in read(run / "report.html")
    assert report(run, "--dataset", moved) == 0
    assert "Every case" in read(run / "report.html")
    assert report(run, "--dataset", run / "nowhere") == 3


def test_a_damaged_model_is_named_and_the_curves_stay(run: Path) -> None:
    (run / "model" / "weights.safetensors").write_bytes(b"x")
    assert report(run) == 0
    page = read(run / "report.html")
    assert "The model package cannot be used" in page
    assert page.count("<svg") == 6


def test_what_is_no_run_and_what_would_be_lost_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(tmp_path) == 3
    assert "no run lies here" in capsys.readouterr().err
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert report(run, "--output", mine) == 2
    assert report(run, "--output", tmp_path / "page.txt") == 2
    assert report(run, run) == 2
    assert "say where with --output" in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_runs_are_compared_on_the_same_cases_or_not_at_all(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "<i>other"
    shutil.copytree(run, other)
    page = tmp_path / "both.html"
    assert report(run, other, "--output", page) == 0
    text = read(page)
    assert "&lt;i&gt;other against run: +0.0000 mean Dice" in text
    assert "<b>no difference</b>" in text
    assert text.count("<svg") == 4
    split = json.loads((other / "split.json").read_text(encoding="utf-8"))
    split["validation"], split["test"] = split["test"], split["validation"]
    (other / "split.json").write_text(json.dumps(split), encoding="utf-8")
    assert report(run, other, "--output", page, "--overwrite") == 0
    assert "was measured on other cases than run" in read(page)


def table(dice: list[list[float]]) -> Table:
    rows = [
        Row(f"case {case}", label, ABSENT if np.isnan(value) else Scores(value, 1.0, 0.5, 0.0, 0.0))
        for case, values in enumerate(dice)
        for label, value in zip(("a", "b"), values, strict=True)
    ]
    return Table(tuple(rows), ("a", "b"), 1.0, {})


def test_the_examples_are_the_best_the_median_and_the_worst_case() -> None:
    nan = float("nan")
    cases = [f"case {index}" for index in range(5)]
    found = ranked(table([[0.5, 0.7], [nan, nan], [0.9, nan], [0.1, 0.1], [0.8, 0.8]]), cases)
    assert found == [("Best", "case 2"), ("Median", "case 0"), ("Worst", "case 3")]
    assert ranked(table([[0.5, 0.7]]), cases[:1]) == [("Only case", "case 0")]
    assert ranked(table([[nan, nan]]), cases[:1]) == []


def test_the_worst_case_comes_first_and_absent_organs_last() -> None:
    nan = float("nan")
    text = per_case(table([[0.9, 0.9], [nan, nan], [0.1, nan]]))
    assert re.findall(r"case \d", text) == ["case 2", "case 0", "case 1"]
    assert '<td data-sort="0.1">0.100</td>' in text
    assert '<td data-sort="">-</td>' in text
