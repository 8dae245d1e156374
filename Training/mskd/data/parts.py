"""The split that a data set comes with: ``"split": {"train": [...], "val": [...]}`` in its description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from mskd.errors import InputError

Part = Literal["train", "validation", "test"]
SPELLINGS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def read_parts(source: Path, description: Mapping[str, Any], ids: Iterable[str]) -> dict[Part, tuple[str, ...]]:
    """Case ids of each part that the description names; nothing where it names none.

    Raises:
        InputError: another form, a part or a case that is unknown, or a case in two parts.
    """
    named = description.get("split", {})
    if not isinstance(named, dict) or not all(isinstance(cases, list) for cases in named.values()):
        example = '{"train": ["a", "b"], "val": ["c"]}'
        raise InputError(f"{source}: 'split' must map parts to lists of cases, like {example}.")
    unknown = sorted(set(named) - set(SPELLINGS))
    if unknown:
        raise InputError(f"{source}: 'split' names the part {unknown[0]!r:.40}; the parts are train, val and test.")
    parts: dict[Part, tuple[str, ...]] = {}
    known, seen = set(ids), set[str]()
    for name, cases in named.items():
        for case in cases:
            if not isinstance(case, str) or case not in known or case in seen:
                fault = "is listed twice" if isinstance(case, str) and case in seen else "the data set does not have"
                raise InputError(f"{source}: 'split' lists {case!r:.60} under '{name}', which {fault}; mend it.")
            seen.add(case)
        parts[SPELLINGS[name]] = (*parts.get(SPELLINGS[name], ()), *cases)
    return parts
