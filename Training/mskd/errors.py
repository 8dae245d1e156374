"""The errors a user can meet: each is one sentence with its remedy, and owns a process exit code."""

from __future__ import annotations

import unicodedata


class MSKDError(Exception):
    """Base of every error whose text is meant for a user.

    ``exit_code`` is what a command line process returns; ``code`` is the stable machine-readable name that the
    worker sends to its client.
    """

    exit_code = 1
    code = "error"

    def __init__(self, sentence: object = "") -> None:
        """Args: sentence: What a file says may be quoted in it; it stays one line that a terminal can show."""
        super().__init__("".join(map(_visible, str(sentence))))


class SettingsError(MSKDError, ValueError):
    """Wrong usage, or a recipe or option that cannot be honoured."""

    exit_code = 2
    code = "settings"


class InputError(MSKDError, ValueError):
    """An image, label map or data set that cannot be read or does not suit the task."""

    exit_code = 3
    code = "input"


class PackageError(MSKDError, ValueError):
    """A model package that is damaged, unsafe, too new or inconsistent."""

    exit_code = 4
    code = "package"


class OutOfMemory(MSKDError, MemoryError):
    """Memory ran out after every fallback was tried."""

    exit_code = 5
    code = "out_of_memory"

    def __new__(cls, *arguments: object) -> OutOfMemory:
        """Made as an Exception: MemoryError has a way of its own, which Python may find unsafe for two bases."""
        return Exception.__new__(cls, *arguments)


class Cancelled(MSKDError):
    """The user asked to stop; nothing half-written is left behind."""

    exit_code = 130
    code = "cancelled"


class Preempted(Cancelled):
    """The system asked to stop (SIGTERM); a training wrote a checkpoint to continue from. 75 is ``EX_TEMPFAIL``."""

    exit_code = 75
    code = "preempted"


def _visible(letter: str) -> str:
    shown = letter.isprintable() or unicodedata.category(letter) == "Zs"
    return letter if shown else letter.encode("unicode_escape").decode("ascii")
