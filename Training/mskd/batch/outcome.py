"""How a case ended."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

from mskd.errors import MSKDError
from mskd.inference.memory import is_out_of_memory

UNEXPECTED = 1
MEMORY = 5


@dataclass(frozen=True)
class Outcome:
    """How a case ended; plain data, for it comes from other processes.

    Args:
        case: Its name.
        entry: For the report: what the engine told, or ``error``, ``code`` and ``exit_code``.
        kept: The result was there already, from a run before.
        stops: Nothing more can be written, so no other case need be tried.
    """

    case: str
    entry: dict[str, Any]
    kept: bool = False
    stops: bool = False

    @property
    def exit_code(self) -> int:
        """0 when there is a result."""
        return int(self.entry.get("exit_code", 0))

    @property
    def error(self) -> str:
        """Why there is no result; empty when there is one."""
        return str(self.entry.get("error", ""))

    @classmethod
    def failed(cls, case: str, fault: Exception, *, stops: bool = False) -> Outcome:
        """Of a case that an exception ended; a fault of the program itself comes with its traceback."""
        if isinstance(fault, MSKDError):
            return cls(case, _entry(case, str(fault), fault.code, fault.exit_code), stops=stops)
        if is_out_of_memory(fault):
            return cls(case, _entry(case, "Memory ran out; close other programs.", "out_of_memory", MEMORY))
        sentence = f"Unexpected {type(fault).__name__}: {' '.join(str(fault).split())}"
        entry = _entry(case, sentence, "error", UNEXPECTED)
        return cls(case, {**entry, "traceback": "".join(traceback.format_exception(fault))})


def _entry(case: str, error: str, code: str, exit_code: int) -> dict[str, Any]:
    return {"case": case, "error": error, "code": code, "exit_code": exit_code}
