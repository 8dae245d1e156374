"""The report of one run: what was run, how it learnt, what it does on cases, and what went wrong."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from mskd.evaluation.table import MEAN
from mskd.events import duration
from mskd.report import results
from mskd.report.charts import chart, curve_of, curves_of
from mskd.report.examine import Examination
from mskd.report.page import card, facts, image, note, page
from mskd.report.record import Record

PARTS_IN_WORDS = {
    "validation": "The model was chosen on these validation cases, so these figures flatter it a little; the test "
    "cases were not read.",
    "test": "No training and no choice of a model read these test cases; look at them once, at the end.",
}


def run_page(record: Record, looked: Examination | str) -> str:
    """The whole page as HTML.

    Args:
        looked: What the model did on cases, or a sentence that says why there is nothing of the kind.
    """
    missing = [*record.missing, *([looked] if isinstance(looked, str) and looked else [])]
    body = [_opening(record, looked), *([results.sentences(missing)] if missing else [])]
    if record.problems:
        body += ["<h2>Skipped by the run</h2>", results.problems(record.problems)]
    body += ["<h2>What was run</h2>", card(facts(list(described(record, looked).items()))), _settings(record)]
    if record.rows:
        body += ["<h2>Curves</h2>", learning_charts(record)]
    if isinstance(looked, Examination):
        body += _measured(looked)
    return page(f"{record.name}: MSKD report", body)


def _opening(record: Record, looked: Examination | str) -> str:
    if isinstance(looked, Examination):
        dice = looked.table.summary(MEAN, "dice")
        low, high = dice.interval
        words = (
            f"Mean Dice {dice.mean:.3f} (95 % interval {low:.3f} to {high:.3f}) on {dice.cases} {looked.part} cases, "
            f"{_progress(record)}."
        )
    else:
        best = _best(record)
        found = f"Best mean Dice in training {best[1]:.3f} at step {best[0]}, " if best else "Nothing is measured yet, "
        words = f"{found}{_progress(record)}."
    return f'<h1>{html.escape(record.name)}</h1><p class="lead">{html.escape(words)}</p>'


def _progress(record: Record) -> str:
    planned = record.role("optimization.steps")
    return f"after {record.step} of {planned} steps" if planned else f"after {record.step} steps"


def _best(record: Record) -> tuple[float, float] | None:
    steps, values = curve_of(record.rows, "dice/mean")
    return max(zip(steps, values, strict=True), key=lambda point: point[1]) if values else None


def described(record: Record, looked: Examination | str) -> dict[str, str]:
    """What was run, each fact in words; what the folder does not say is left out."""
    fingerprint, split, teacher = record.setting("data_fingerprint"), record.split, record.setting("teacher")
    about = looked.table.about if isinstance(looked, Examination) else None
    best, terms = _best(record), record.setting("recipe.distillation.terms")
    found = {
        "Network": f"{record.setting('role')}: {record.role('network')} {_pairs(record.role('arguments'))}",
        "Weights": f"{about['model']['parameters']:,}" if about else None,
        "Teacher": f"{teacher.get('name')} ({str(teacher.get('fingerprint'))[:12]})" if teacher else "none",
        "Distillation": "; ".join(f"{name} {_pairs(term)}".strip() for name, term in (terms or {}).items())
        if teacher
        else None,
        "Data set": f"{record.setting('dataset')}" + (f" ({str(fingerprint)[:12]})" if fingerprint else ""),
        "Split": f"{len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test cases, seed "
        f"{split.seed}"
        if split
        else None,
        "Recipe": f"{record.setting('recipe.name')}, seed {record.setting('recipe.seed')} "
        f"({str(record.setting('recipe_sha256'))[:12]})",
        "Budget": _pairs(record.role("optimization")),
        "Best in training": f"mean Dice {best[1]:.4f} at step {best[0]:g}, on the network's own grid" if best else None,
        "Time": duration(record.seconds) + " of steps" if record.seconds else None,
        "Versions": _pairs(record.setting("versions")),
        "Model": f"{record.package.path} ({record.package.fingerprint[:12]})" if record.package else None,
        "This report": f"{about['milliseconds_per_case'] / 1000:.2f} s a case on {about['device']}" if about else None,
    }
    return {name: text for name, text in found.items() if text}


def _pairs(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in values.items())


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(record: Record) -> str:
    """Everything that the run resolved, folded away."""
    parts = [("All settings", record.settings), ("The plan made from the data", record.plan)]
    return "".join(
        f"<details><summary>{title}</summary><pre><code>{html.escape(json.dumps(values, indent=1))}</code></pre>"
        "</details>"
        for title, values in parts
        if values
    )


def learning_charts(record: Record) -> str:
    """One chart a family of metrics, those that the run wrote."""
    rows = record.rows
    families = [
        ("Dice on the validation cases", "Dice", curves_of(rows, "dice/"), (0.0, 1.0)),
        ("Loss, term by term", "weighted loss", curves_of(rows, "loss/"), None),
        ("Norm of the gradient, term by term", "norm", curves_of(rows, "gradient/"), None),
        ("Learning rate", "learning rate", {"": curve_of(rows, "learning_rate")}, (0.0, None)),
        ("Time a step takes", "seconds", {"": curve_of(rows, "seconds_per_step")}, None),
        ("Share of the time spent waiting for data", "share", {"": curve_of(rows, "loader_wait")}, (0.0, 1.0)),
    ]
    drawn = [
        card(f"<h3>{title}</h3>{chart(curves, label, limits)}")
        for title, label, curves, limits in families
        if any(steps for steps, _ in curves.values())
    ]
    return f'<div class="charts">{"".join(drawn)}</div>'


def _measured(looked: Examination) -> list[str]:
    table = looked.table
    body = [f"<h2>Per label, on the {looked.part} cases</h2>", results.per_label({"": table})]
    body.append(note(PARTS_IN_WORDS[looked.part]))
    if looked.examples:
        body.append("<h2>Examples</h2>")
        body.append(note("By mean Dice; each slice is the one whose errors cost most Dice."))
        body += [_example(entry, looked) for entry in looked.examples]
    body += ["<h2>Which organ is taken for which</h2>", results.confusion_matrix(looked.confusion)]
    return [*body, "<h2>Every case, the worst first</h2>", results.per_case(table)]


def _example(entry: Any, looked: Examination) -> str:
    scores = {row.label: row.scores.dice for row in looked.table.rows if row.case == entry.case}
    mean = looked.table.values(MEAN, "dice")[looked.table.about["dataset"]["cases"].index(entry.case)]
    words = ", ".join(f"{label} {'-' if dice != dice else format(dice, '.3f')}" for label, dice in scores.items())
    caption = (
        f"<b>{html.escape(entry.rank)}: {html.escape(entry.case)}</b>, mean Dice {mean:.3f} ({html.escape(words)})"
    )
    return card(f"<figure><figcaption>{caption}</figcaption>{image(entry.picture, f'{entry.rank} case')}</figure>")
