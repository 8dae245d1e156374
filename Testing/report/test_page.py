"""Pages: everything is text, tables say what they are told, only one script may run."""

from __future__ import annotations

import base64
import hashlib
import re

from mskd.report.page import SCRIPT, Cell, card, facts, image, note, page, table

NASTY = "<script>alert('x')</script>&\""


def test_whatever_is_written_is_text() -> None:
    parts = [
        table([NASTY, "b"], [[NASTY, Cell(NASTY, note=NASTY)]], groups=[(NASTY, 2)], kind="sortable"),
        facts([(NASTY, NASTY)]),
        note(NASTY),
        image(b"png", NASTY),
    ]
    html = page(NASTY, [card(part) for part in parts])
    assert html.count("&lt;script&gt;alert(") == 10
    assert re.findall(r"<script[^>]*>", html) == ["<script>"]


def test_the_policy_knows_the_one_script() -> None:
    html = page("t", [])
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert script is not None
    assert script[1] == SCRIPT
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html


def test_cells_carry_what_sorts_and_tints_them() -> None:
    html = table(["a", "b"], [["x", Cell("0.5", sort=0.5, shade=0.25)], ["y", Cell("-", sort=float("nan"))]])
    assert '<td data-sort="0.5" style="background: rgba(var(--tint), 0.250)">0.5</td>' in html
    assert '<td data-sort="">-</td>' in html
    assert table(["a"], [["all"]], strong=[True]).count("<tr class=mean>") == 1
