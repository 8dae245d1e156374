"""Files written whole or not at all, and places checked before there is anything to write."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mskd.errors import InputError, SettingsError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Hand out a temporary sibling of ``target`` to write; when the block ends well, it becomes ``target``.

    Raises:
        InputError: the disk is full or the place is not writable; what was at ``target`` is as it was.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except OSError as fault:
        raise InputError(
            f"{target} cannot be written ({fault.strerror or fault}); what was there is untouched. Make room, or "
            "choose another place."
        ) from fault
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text as a whole; see :func:`replacing`."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_writable_folder(folder: Path, option: str) -> None:
    """Refuse a folder that could not be made or written in later, before any work is done for it.

    Args:
        option: What the user called it, for the message ("--output").

    Raises:
        SettingsError: the folder, or the nearest one above it that exists, is a file or not writable.
    """
    nearest = folder.absolute()
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise SettingsError(f"{option} {folder}: {nearest} is not a folder; choose another place.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise SettingsError(f"{option} {folder}: the folder {nearest} is not writable; choose another place.")


def require_new_file(path: Path, option: str, *, overwrite: bool) -> None:
    """Refuse a file that could not be written later, before any work is done for it.

    Raises:
        SettingsError: it exists (without ``overwrite``), is a folder, or lies in a folder that is not there or not
            writable.
    """
    if path.is_dir():
        raise SettingsError(f"{option} {path}: this is a folder; name the file to write.")
    if os.path.lexists(path) and not overwrite:
        raise SettingsError(
            f"{option} {path}: this file exists already and was kept; choose another name, or give --overwrite."
        )
    require_writable_folder(path.absolute().parent, option)
