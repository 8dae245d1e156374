"""A plain, self-contained HTML page: its style, its tables, its embedded pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

STYLE = """
:root { color-scheme: light; }
body { margin: 0; color: #1d2733; background: #f5f6f8; }
body { font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
p { max-width: 46rem; }
p.lead { font-size: 1.1rem; color: #33414f; }
section.card { background: #fff; border: 1px solid #dfe3e8; border-radius: 10px; padding: 1.1rem 1.3rem; }
section.card { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .86rem; }
th, td { text-align: right; padding: .38rem .45rem; border-bottom: 1px solid #e8ebef; white-space: nowrap; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
thead th { border-bottom: 2px solid #b9c2cc; font-weight: 600; }
tr.mean td { font-weight: 600; border-bottom: 2px solid #b9c2cc; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
code { background: #eef1f4; padding: .08rem .3rem; border-radius: 4px; font-size: .9em; }
pre { background: #1d2733; color: #f0f3f6; padding: .9rem 1.1rem; border-radius: 8px; overflow-x: auto; }
pre code { background: none; padding: 0; color: inherit; }
.note { color: #57636f; font-size: .86rem; }
"""


def page(title: str, body: Sequence[str]) -> str:
    """A whole page; ``body`` is HTML, ``title`` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    text_columns: Sequence[int] = (0,),
    strong: Sequence[bool] = (),
) -> str:
    """A table of text; ``strong`` marks the rows that sum up."""

    def cells(tag: str, values: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{' class=text' if index in text_columns else ''}>{html.escape(str(value))}</{tag}>"
            for index, value in enumerate(values)
        )

    marks = list(strong) or [False] * len(rows)
    body = "".join(
        f"<tr{' class=mean' if mark else ''}>{cells('td', row)}</tr>" for row, mark in zip(rows, marks, strict=True)
    )
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def card(content: str) -> str:
    """HTML in a white box that scrolls sideways where it is too wide."""
    return f'<section class="card">{content}</section>'


def image(path: Path, text: str) -> str:
    """A PNG, embedded; ``text`` stands for it where it cannot be seen."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">'
