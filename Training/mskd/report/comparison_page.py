"""The report of several runs: their curves in one picture, their figures in one table, and whether they differ."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mskd.evaluation.compare import compare, comparison_sentence
from mskd.evaluation.table import MEAN
from mskd.report import results
from mskd.report.charts import Curves, Limits, chart, curve_of, curves_of
from mskd.report.examine import Examination
from mskd.report.page import Cell, card, note, page, table
from mskd.report.record import Record
from mskd.report.run_page import described

Run = tuple[Record, "Examination | str"]


def comparison_page(runs: Sequence[Run]) -> str:
    """The whole page as HTML; every run is held against the first."""
    names = [record.name for record, _ in runs]
    missing = [f"{record.name}: {line}" for record, looked in runs for line in _missing(record, looked)]
    measured = {record.name: looked for record, looked in runs if isinstance(looked, Examination)}
    body = [f"<h1>{html.escape(', '.join(names))}</h1>", *([results.sentences(missing)] if missing else [])]
    if measured:
        part = next(iter(measured.values())).part
        body.append(f"<h2>On the {part} cases</h2>")
        if len(measured) > 1:
            body.append(card(differences(measured)))
        body.append(results.per_label({name: looked.table for name, looked in measured.items()}))
        body += ["<h2>Which organ is taken for which</h2>", card(_confusions(measured))]
    body += ["<h2>Curves</h2>", _charts([record for record, _ in runs]), "<h2>What was run</h2>", card(_facts(runs))]
    return page(f"{', '.join(names)}: MSKD report", body)


def _missing(record: Record, looked: Examination | str) -> list[str]:
    return [*record.missing, *([looked] if isinstance(looked, str) and looked else [])]


def differences(measured: dict[str, Examination]) -> str:
    """One sentence for each run after the first, as HTML: is it better, worse, or is there no difference?"""
    (reference, first), *others = measured.items()
    lines = []
    for name, looked in others:
        if looked.table.about["dataset"]["cases"] != first.table.about["dataset"]["cases"]:
            lines.append(f"<li>{html.escape(name)} was measured on other cases than {html.escape(reference)}.</li>")
            continue
        values = [found.table.values(MEAN, "dice") for found in (looked, first)]
        try:
            figures, verdict = comparison_sentence(name, reference, compare(*values).as_json())
        except ValueError as fault:
            figures, verdict = f"{name} against {reference}", str(fault)
        lines.append(f"<li>{html.escape(figures)}: <b>{html.escape(verdict)}</b>.</li>")
    words = (
        "Paired over cases; a difference whose interval holds 0 is no difference. One run each says nothing of other "
        "seeds."
    )
    return f"<ul>{''.join(lines)}</ul>{note(words)}"


def _confusions(measured: dict[str, Examination]) -> str:
    rows = [
        [name, *(Cell(f"{100 * share:.2f} %") for share in (looked.confusion.organ_to_organ, looked.confusion.missed))]
        for name, looked in measured.items()
    ]
    return table(["Run", "Organs' voxels given to another organ", "left to the background"], rows, kind="tight")


def _charts(records: Sequence[Record]) -> str:
    def each(column: str) -> Curves:
        return {record.name: curve_of(record.rows, column) for record in records}

    def losses(record: Record) -> tuple[list[float], list[float]]:
        return curves_of(record.rows, "loss/").get("segmentation", ([], []))

    families: list[tuple[str, str, Curves, Limits | None]] = [
        ("Mean Dice on the validation cases", "Dice", each("dice/mean"), (0.0, 1.0)),
        ("Segmentation loss", "loss", {record.name: losses(record) for record in records}, None),
        ("Learning rate", "learning rate", each("learning_rate"), (0.0, None)),
        ("Time a step takes", "seconds", each("seconds_per_step"), None),
    ]
    drawn = [card(f"<h3>{title}</h3>{chart(curves, label, limits)}") for title, label, curves, limits in families]
    return f'<div class="charts">{"".join(drawn)}</div>'


def _facts(runs: Sequence[Run]) -> str:
    columns = [described(record, looked) for record, looked in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "-") for column in columns)] for name in names]
    return table(["", *(record.name for record, _ in runs)], rows, tuple(range(len(runs) + 1)))
