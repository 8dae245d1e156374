"""A self-contained HTML page that needs no network: its style, its tables, its pictures; all text is escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #57636f; --paper: #f5f6f8; --card: #fff; --line: #dfe3e8;
  --strong: #b9c2cc; --code: #eef1f4; --warn: #fff4dc; --warnline: #e0b04c; --tint: 0, 114, 178; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ec; --soft: #98a5b3; --paper: #12161b; --card: #1a2027;
  --line: #2c343d; --strong: #4a5663; --code: #262e37; --warn: #33290f; --warnline: #8a6a1f; --tint: 86, 180, 233; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --card: #fff; --line: #ccc;
  --strong: #888; --code: #f3f3f3; --warn: #fff4dc; --warnline: #e0b04c; --tint: 0, 114, 178; } }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { max-width: 52rem; }
p.lead { font-size: 1.1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.3rem;
  margin: 0 0 1rem; overflow-x: auto; }
.warn { background: var(--warn); border-color: var(--warnline); }
.warn p, .warn ul { margin: .2rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
.charts .card { margin: 0; padding: .6rem .8rem; }
.charts svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .86rem; }
table.tight { width: auto; }
th, td { text-align: right; padding: .38rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
td.text { overflow-wrap: anywhere; white-space: normal; min-width: 6rem; }
table.sortable td.text { min-width: 9rem; }
table.triples tr:not(.groups) > :nth-child(3n+2) { border-left: 1px solid var(--line); padding-left: .8rem; }
table.sortable td:first-child, table.sortable th:first-child { position: sticky; left: 0; background: var(--card); }
thead th { border-bottom: 2px solid var(--strong); font-weight: 600; }
thead tr.groups th { border-bottom: 0; text-align: center; color: var(--soft); }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25b4"; }
th[aria-sort=descending] button::after { content: " \\25be"; }
tr.mean td { font-weight: 600; border-bottom: 2px solid var(--strong); }
td[style] { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.note { color: var(--soft); font-size: .86rem; }
td .note { display: block; font-weight: 400; font-size: .94em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; }
figcaption { margin: 0 0 .6rem; }
.card > :first-child { margin-top: 0; }
.card > :last-child { margin-bottom: 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: 6px; }
code { background: var(--code); padding: .08rem .3rem; border-radius: 4px; font-size: .9em; }
pre { background: var(--code); padding: .9rem 1.1rem; border-radius: 8px; overflow-x: auto; font-size: .86rem; }
pre code { background: none; padding: 0; }
summary { cursor: pointer; }
@media (max-width: 40rem) { main { padding: 1.2rem .8rem 3rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } .card { padding: .8rem; } }
@media print { main { max-width: none; padding: 0; } .card { overflow: visible; border: 0; padding: 0; }
  figure, .charts .card, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } table { font-size: .62rem; }
  img { max-height: 11.5cm; } .charts { grid-template-columns: 1fr 1fr; } th, td { padding: .15rem .25rem; } }
"""
# A click on a head sorts its table: numbers by data-sort, text as it reads; what has no number stays last.
SCRIPT = """
for (const button of document.querySelectorAll("table.sortable th button")) button.onclick = () => {
  const head = button.parentElement, column = head.cellIndex, body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => { const cell = row.cells[column], value = cell.dataset.sort;
    return value === undefined ? cell.textContent : value === "" ? NaN : Number(value); };
  const order = (a, b) => typeof a === "string" ? a.localeCompare(b) : a - b;
  const lacks = value => Number.isNaN(value) ? 1 : 0;
  [...body.rows].map(row => [key(row), row])
    .sort(([a], [b]) => lacks(a) - lacks(b) || (up ? order(a, b) : order(b, a)))
    .forEach(([, row]) => body.append(row));
};
"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: What is read.
        note: A second, smaller line.
        sort: What orders a sortable column; NaN stays last.
        shade: 0 to 1, how strongly the cell is tinted.
    """

    text: str
    note: str = ""
    sort: float | None = None
    shade: float | None = None


def page(title: str, body: Sequence[str]) -> str:
    """A whole page; ``body`` is HTML, ``title`` is text. The policy in its head lets no script but this one run."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join(body)
        + f"\n</main><script>{SCRIPT}</script></body></html>\n"
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    text_columns: Sequence[int] = (0,),
    strong: Sequence[bool] = (),
    *,
    groups: Sequence[tuple[str, int]] = (),
    kind: str = "",
) -> str:
    """A table of text and :class:`Cell`.

    Args:
        text_columns: Columns that read as words.
        strong: The rows that sum up.
        groups: Titles above the head, each over so many columns.
        kind: Any of the words "sortable" (by a click on the head), "tight" (no wider than it must be) and "triples"
            (the columns after the first are ruled off by threes).
    """

    def cell(index: int, value: object) -> str:
        mark = " class=text" if index in text_columns else ""
        return f"<td{mark}{_attributes(value)}>{_content(value)}</td>"

    def title(index: int, text: str) -> str:
        mark = " class=text" if index in text_columns else ""
        name = html.escape(text)
        return f"<th{mark}>{f'<button>{name}</button>' if 'sortable' in kind else name}</th>"

    marks = list(strong) or [False] * len(rows)
    above = "".join(f"<th colspan={width}>{html.escape(text)}</th>" for text, width in groups)
    lines = "".join(
        f"<tr{' class=mean' if mark else ''}>{''.join(cell(*item) for item in enumerate(row))}</tr>"
        for row, mark in zip(rows, marks, strict=True)
    )
    return (
        f'<table class="{kind}"><thead>'
        f"{f'<tr class=groups>{above}</tr>' if above else ''}"
        f"<tr>{''.join(title(*item) for item in enumerate(head))}</tr></thead><tbody>{lines}</tbody></table>"
    )


def _attributes(value: object) -> str:
    if not isinstance(value, Cell):
        return ""
    sort = "" if value.sort is None else f' data-sort="{value.sort if math.isfinite(value.sort) else ""}"'
    return sort + ("" if value.shade is None else f' style="background: rgba(var(--tint), {value.shade:.3f})"')


def _content(value: object) -> str:
    if not isinstance(value, Cell):
        return html.escape(str(value))
    note = f"<span class=note>{html.escape(value.note)}</span>" if value.note else ""
    return html.escape(value.text) + note


def card(content: str, kind: str = "") -> str:
    """HTML in a box that scrolls sideways where it is too wide; ``kind`` "warn" asks for attention."""
    return f'<section class="card{" " + kind if kind else ""}">{content}</section>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and what they are, as text."""
    return "<dl>" + "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in pairs) + "</dl>"


def note(text: str) -> str:
    """A sentence in small print."""
    return f'<p class="note">{html.escape(text)}</p>'


def image(content: Path | bytes, text: str) -> str:
    """A PNG, embedded; ``text`` stands for it where it cannot be seen."""
    data = base64.b64encode(content if isinstance(content, bytes) else content.read_bytes()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">'
