"""A recipe as TOML that says why each value is what it is."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from typing import Any

from mskd.training.settings import Recipe

WIDTH = 116


def recipe_toml(recipe: Recipe, reasons: Mapping[str, str], heading: str) -> str:
    """The whole recipe; reading it again gives the same one.

    Args:
        reasons: Sentences by dotted key; they stand above their values.
        heading: Comment at the top.
    """
    data = recipe.model_dump(mode="json", exclude_none=True)
    lines = [*_comment(heading), ""]
    _section(data, (), reasons, lines)
    return "\n".join(lines).rstrip() + "\n"


def _section(data: Mapping[str, Any], path: tuple[str, ...], reasons: Mapping[str, str], lines: list[str]) -> None:
    """Values first: what follows a table's heading belongs to it."""
    tables = {key: value for key, value in data.items() if isinstance(value, dict) and not _inline(path, key)}
    for key, value in data.items():
        if key not in tables:
            lines += _comment(reasons.get(".".join((*path, key)), ""))
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, table in tables.items():
        inner = (*path, key)
        if table:
            lines += ["", *_comment(reasons.get(".".join(inner), "")), f"[{'.'.join(map(_key, inner))}]"]
            _section(table, inner, reasons, lines)


def _inline(path: tuple[str, ...], key: str) -> bool:
    """Small records that read better on one line."""
    return key == "normalization" or path[-1:] in (("terms",), ("terminology",))


def _key(key: str) -> str:
    plain = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if plain else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }" if value else "{}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a recipe holds finite numbers, not {value}")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _comment(text: str) -> list[str]:
    return [f"# {line}".rstrip() for part in text.splitlines() for line in textwrap.wrap(part, WIDTH) or [""]]
