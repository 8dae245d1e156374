"""What the check has to say: which rule, about which cases, how grave, with the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
# The gravest first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MOST_IDS = 5
# What more than this share of the cases show, and more than FEW of them, is a second kind of case, not an outlier.
COMMON, FEW = 0.1, 2


@dataclass(frozen=True)
class Finding:
    """One thing that somebody should look at.

    Args:
        rule: Stable name, lower-case words joined by hyphens.
        severity: ``error``: training would stop, or learn or report something wrong. ``warning``: probably a fault,
            seen by statistics. ``note``: worth knowing.
        cases: Ids; empty when it is about the data set as a whole.
        text: One sentence: what, the value, the rule, the remedy.
        value: The measured value, where one number or word says it.
    """

    rule: str
    severity: Severity
    cases: tuple[str, ...]
    text: str
    value: float | str | None = None


def gravest_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """In order of severity; within one, as they came."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def fold_common(found: Sequence[Finding], cases: int, what: str, *, common: float = COMMON) -> list[Finding]:
    """One note instead of many warnings when too many cases deviate to be outliers.

    Args:
        found: Findings of one rule, one a case.
        cases: Number of cases that were compared.
        what: What the cases have, to follow "12 of 40 cases".
        common: Share of the cases from which on it is the data set's way.
    """
    if len(found) <= max(FEW, common * cases):
        return list(found)
    ids = tuple(finding.cases[0] for finding in found)
    text = (
        f"{len(ids)} of {cases} cases {what}: too many to be mistakes, so the data set probably mixes sources; see "
        "that each source is in training, validation and test alike."
    )
    return [Finding(found[0].rule, "note", ids, text)]


def listed(ids: Sequence[str]) -> str:
    """Ids for a sentence, shortened when they are many."""
    rest = len(ids) - MOST_IDS
    return ", ".join(ids[:MOST_IDS]) + (f" and {rest} more" if rest > 0 else "")
