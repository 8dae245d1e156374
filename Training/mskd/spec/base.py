"""Strict pydantic models, and validation errors written as sentences."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mskd.errors import MSKDError

MOST_FAULTS = 12
LONGEST_FAULT = 300
"""Characters: a file that means ill must not fill the screen, or a log."""


class Strict(BaseModel):
    """An immutable record that refuses unknown keys and implicit conversions between kinds of value."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: Mapping[str, Any], *, source: str, error: type[MSKDError]) -> Model:
    """Build ``model`` from ``data``, or raise ``error`` with one sentence per fault.

    The data passes through JSON, whose strict rules take a list for a tuple and 1 for 1.0, but never "1" for 1.

    Args:
        source: What the data came from, for the message (a file name, usually).
        error: The kind of error to raise, which fixes the exit code.
    """
    return _build(model, data, source, error, lambda fault: True)


def validate_draft(model: type[Model], data: Mapping[str, Any], *, source: str, error: type[MSKDError]) -> Model | None:
    """Like :func:`validate`, but what is left out is no fault: None then, once everything that is there was checked."""
    try:
        return _build(model, data, source, error, lambda fault: fault["type"] != "missing")
    except _Incomplete:
        return None


class _Incomplete(Exception):
    """Nothing is wrong with the data but what they leave out."""


def _build(
    model: type[Model],
    data: Mapping[str, Any],
    source: str,
    error: type[MSKDError],
    counts: Callable[[Any], bool],
) -> Model:
    """Args: counts: Whether a fault of pydantic's is one here."""
    try:
        return model.model_validate_json(json.dumps(data))
    except (TypeError, RecursionError) as unfit:
        raise error(f"{source}: holds values that JSON cannot express ({unfit}).") from unfit
    except ValidationError as invalid:
        faults = [_sentence(model, fault)[:LONGEST_FAULT] for fault in invalid.errors() if counts(fault)]
        if not faults:
            raise _Incomplete from invalid
        more = [f"There are {len(faults) - MOST_FAULTS} more faults."] if len(faults) > MOST_FAULTS else []
        raise error(f"{source}: " + " ".join([*faults[:MOST_FAULTS], *more])) from invalid


def _sentence(model: type[BaseModel], fault: Any) -> str:
    location = ".".join(str(part) for part in fault["loc"]) or "the file"
    if fault["type"] == "extra_forbidden":
        return f"Unknown key '{location}'{suggestion(str(fault['loc'][-1]), _keys_at(model, fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"'{location}' is missing; add it."
    reason = fault["msg"].removeprefix("Value error, ").rstrip(".")
    if not fault["loc"] and fault["type"] == "value_error":
        return f"{reason}."
    return f"'{location}' is {_short(fault['input'])}: {reason}."


def suggestion(word: str, known: list[str]) -> str:
    """The end of a sentence about an unknown word: ``; did you mean 'x'?``, or what is known when nothing is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f" (known: {', '.join(sorted(known))})." if known else "."


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The field names of the record that sits at ``path`` below ``model``."""
    current: Any = model
    for part in path:
        fields = getattr(current, "model_fields", {})
        if part in fields:
            current = _record_in(fields[part].annotation)
    return list(getattr(current, "model_fields", {}))


def _record_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for found in map(_record_in, get_args(annotation)) if found is not None), None)
