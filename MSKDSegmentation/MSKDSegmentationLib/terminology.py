"""A label's DICOM codes as the string that Slicer keeps with a segment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TYPE_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
REGION_CONTEXT = "Anatomic codes - DICOM master list"


def terminology_entry(terminology: Mapping[str, Any]) -> str:
    """Category, type and modifier, then the region and its modifier, each ``scheme^value^meaning``, joined by ``~``.

    ``terminology`` maps those names to records of scheme, value and meaning, or to None.
    """
    parts = [TYPE_CONTEXT]
    parts += [_code(terminology.get(key)) for key in ("category", "type", "type_modifier")]
    parts.append(REGION_CONTEXT)
    parts += [_code(terminology.get(key)) for key in ("region", "region_modifier")]
    return "~".join(parts)


def _code(code: Mapping[str, str] | None) -> str:
    if not code:
        return "^^"
    return "^".join(_plain(code[key]) for key in ("scheme", "value", "meaning"))


def _plain(text: str) -> str:
    # The separators cannot be escaped in this format.
    return text.replace("^", " ").replace("~", " ")
