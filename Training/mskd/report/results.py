"""Tables of what was measured, as HTML: per label, per case, and which organ was taken for which."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mskd.evaluation.confusion import Confusion
from mskd.evaluation.table import MEAN, METRICS, POLICY, Summary, Table
from mskd.report.charts import heat_map
from mskd.report.page import Cell, card, note, table

DIGITS = {"dice": 3, "hd95": 1, "nsd": 3, "volume_error_ml": 1, "volume_error_percent": 1}
MOST_NAMED_LABELS = 12  # a per-case table of more shows the Dice alone
MOST_CLASSES = 20  # a confusion matrix of more is read as a picture alone
MOST_MISTAKES = 10


def per_label(tables: Mapping[str, Table]) -> str:
    """Mean, spread and interval per label of one or several models, named where they are several."""
    first, named = next(iter(tables.values())), len(tables) > 1
    head = ["Label", "Dice", "HD95 (mm)", f"NSD ({first.tolerance:g} mm)", "Volume error (mL)", "%", "Cases"]
    rows, means = [], []
    for name, found in tables.items():
        for label in (*found.labels, MEAN):
            rows.append([*([name] if named else []), label, *_figures(found, label)])
            means.append(label == MEAN)
    drawn = table([*(["Model"] if named else []), *head], rows, (0, 1) if named else (0,), means)
    words = f"Mean ± standard deviation over cases; below it, the 95 % bootstrap interval of the mean. {POLICY}"
    return card(drawn + note(words))


def _figures(found: Table, label: str) -> list[object]:
    summaries = [found.summary(label, metric) for metric in METRICS]
    absent = f"{summaries[0].absent} absent" if summaries[0].absent else ""
    return [*(_figure(entry) for entry in summaries), Cell(str(summaries[0].cases), absent)]


def _figure(found: Summary) -> Cell:
    if not found.cases:
        return Cell("-")
    digits = DIGITS[found.metric]
    low, high = found.interval
    return Cell(f"{found.mean:.{digits}f} ± {found.std:.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}")


def per_case(found: Table) -> str:
    """Every case, the worst first; a click on a head sorts by that column."""
    cases = list(dict.fromkeys(row.case for row in found.rows))
    few = len(found.labels) <= MOST_NAMED_LABELS
    columns = [(MEAN, metric) for metric in ("dice", "hd95", "nsd")]
    columns += [(label, metric) for label in found.labels for metric in (("dice", "hd95", "nsd") if few else ("dice",))]
    values = np.stack([found.values(label, metric) for label, metric in columns], axis=1)
    order = np.lexsort((np.arange(len(cases)), values[:, 0]))
    rows = [
        [cases[case], *(_score(metric, value) for (_, metric), value in zip(columns, values[case], strict=True))]
        for case in order
    ]
    names = {"dice": "Dice", "hd95": "HD95", "nsd": "NSD"}
    if few:
        groups = [("", 1), *((label, 3) for label in (MEAN, *found.labels))]
        head = ["Case", *(names[metric] for _, metric in columns)]
    else:
        groups = [("", 1), (MEAN, 3), ("Dice", len(found.labels))]
        head = ["Case", *(names[metric] for _, metric in columns[:3]), *found.labels]
    words = f"HD95 in mm, NSD within {found.tolerance:g} mm; '-' where an organ is in neither truth nor prediction."
    return card(table(head, rows, groups=groups, kind="sortable triples" if few else "sortable") + note(words))


def _score(metric: str, value: float) -> Cell:
    text = f"{value:.{DIGITS[metric]}f}" if math.isfinite(value) else "-"
    return Cell(text, sort=float(value))


def confusion_matrix(found: Confusion) -> str:
    """Row-normalised voxels, tinted by their share, and the largest confusions between organs."""
    parts = [
        f"<p>Of the organs' voxels, <b>{100 * found.organ_to_organ:.2f} %</b> were given to another organ and "
        f"<b>{100 * found.missed:.2f} %</b> were left to the background.</p>"
    ]
    if len(found.names) <= MOST_CLASSES:
        rows = [
            [name, *(_share(share) for share in shares), f"{int(total):,}"]
            for name, shares, total in zip(found.names, found.shares, found.counts.sum(axis=1), strict=True)
        ]
        parts.append(table(["True \\ found", *found.names, "Voxels"], rows))
        parts.append(note("Each row: where the voxels of a true class went, in per cent of them, all cases pooled."))
    else:
        words = "Rows: true class; columns: where its voxels went, all cases pooled; square root of the share."
        parts.append(f'<div class="charts">{heat_map(found.shares, found.names)}</div>{note(words)}')
    mistakes = [
        [entry.truth, entry.found, f"{100 * entry.share:.2f} %", f"{entry.voxels:,}"]
        for entry in found.mistakes(MOST_MISTAKES)
    ]
    if mistakes:
        parts.append("<h3>Organs taken for another</h3>")
        parts.append(table(["Organ", "Taken for", "Of its voxels", "Voxels"], mistakes, (0, 1), kind="tight"))
    return card("".join(parts))


def _share(share: float) -> Cell:
    """A share in per cent, tinted by its square root: small confusions are what one looks for."""
    text = "0" if share == 0 else "<0.01" if share < 5e-5 else f"{100 * share:.2f}"
    return Cell(text, shade=0.75 * math.sqrt(share))


def problems(entries: Sequence[Mapping[str, object]], most: int = 200) -> str:
    """What a run skipped, with all that it wrote down about it."""
    columns = list(dict.fromkeys(key for entry in entries for key in entry))
    rows = [[entry.get(column, "") for column in columns] for entry in entries[:most]]
    left = f"<p>{len(entries) - most} more are in <code>problems.jsonl</code>.</p>" if len(entries) > most else ""
    return card(table(columns, rows, tuple(range(len(columns)))) + left, "warn")


def sentences(lines: Sequence[str]) -> str:
    """What is missing, in a box that asks for attention."""
    return card("".join(f"<p>{html.escape(line)}</p>" for line in lines), "warn")
