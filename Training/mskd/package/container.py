"""The files of a package, in a folder or a zip, read into memory under limits; nothing is ever unpacked to disk."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mskd.errors import PackageError

LARGEST_PACKAGE = 2 << 30
LARGEST_TEXT = 4 << 20
MOST_ENTRIES = 64
LARGEST_RATIO = 200
UNSUSPICIOUS = 1 << 20
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
LITTER_FOLDER = "__MACOSX"


class Container(Protocol):
    """Files by plain name; ``sizes`` in bytes."""

    sizes: dict[str, int]

    def read(self, name: str) -> bytes:
        """All bytes of one file."""
        ...


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """A package folder or zip, with names and sizes checked.

    Raises:
        PackageError: not a package, a link, a sub-folder, a path that leaves the package, or too large.
    """
    try:
        if path.is_dir():
            yield _Folder(path)
            return
        if not zipfile.is_zipfile(path):
            raise PackageError(f"{path} is neither a package folder nor a .mskd.zip file; give one of them.")
        with zipfile.ZipFile(path) as archive:
            yield _Zip(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError) as fault:
        raise PackageError(f"{path}: is a damaged zip file ({fault}); get the package again.") from fault
    except OSError as fault:
        raise PackageError(f"{path}: cannot be read ({fault.strerror or fault}).") from fault


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.sizes: dict[str, int] = {}
        for entry in os.scandir(path):
            if entry.name in LITTER:
                continue
            if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
                raise PackageError(f"{path}: {entry.name!r} is not a plain file, and a package holds nothing else.")
            self.sizes[entry.name] = entry.stat().st_size
        _within_limits(path, self.sizes)

    def read(self, name: str) -> bytes:
        with (self._path / name).open("rb") as stream:
            data = stream.read(self.sizes[name] + 1)
        if len(data) != self.sizes[name]:
            raise PackageError(f"{self._path}: {name} changed while it was read; try again.")
        return data


class _Zip:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        entries = [entry for entry in archive.infolist() if not _is_litter(entry.filename)]
        for entry in entries:
            self._check(entry)
        top = _common_folder([entry.filename for entry in entries])
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            name = entry.filename.removeprefix(top)
            if not name:
                continue
            if "/" in name or name in self._entries:
                raise PackageError(f"{path}: {entry.filename!r:.80} is a sub-folder or comes twice; a package is flat.")
            self._entries[name] = entry
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}
        _within_limits(path, self.sizes)

    def _check(self, entry: zipfile.ZipInfo) -> None:
        name, parts = entry.filename, entry.filename.split("/")
        where = f"{self._path}: the zip entry {name!r:.80}"
        if name.startswith("/") or "\\" in name or ":" in name or "\0" in name or ".." in parts or "." in parts:
            raise PackageError(f"{where} leads out of the package; do not use this file.")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise PackageError(f"{where} is a link or device, and a package holds plain files; do not use this file.")
        if entry.flag_bits & 1:
            raise PackageError(f"{where} is encrypted, which a package never is.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PackageError(f"{where} uses a compression other than deflate; zip the package again.")
        if entry.file_size > UNSUSPICIOUS and entry.file_size > LARGEST_RATIO * max(entry.compress_size, 1):
            raise PackageError(f"{where} would grow {LARGEST_RATIO} times or more (a zip bomb); do not use this file.")

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        try:
            with self._archive.open(entry) as stream:
                data = stream.read(entry.file_size + 1)
        except RuntimeError as fault:
            raise PackageError(f"{self._path}: {name} cannot be read ({fault}).") from fault
        if len(data) != entry.file_size:
            raise PackageError(f"{self._path}: {name} is not as long as the zip file says; get the package again.")
        return data


def _is_litter(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == LITTER_FOLDER or parts[-1] in LITTER


def _common_folder(names: list[str]) -> str:
    """``folder/`` when all entries lie in one folder, as when a folder was zipped by hand."""
    tops = {name.split("/")[0] for name in names}
    return f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""


def _within_limits(path: Path, sizes: dict[str, int]) -> None:
    if len(sizes) > MOST_ENTRIES:
        raise PackageError(f"{path}: holds {len(sizes)} files; is this a model package?")
    if sum(sizes.values()) > LARGEST_PACKAGE:
        raise PackageError(f"{path}: holds {sum(sizes.values())} bytes; a package has at most {LARGEST_PACKAGE}.")
    for name, size in sizes.items():
        if name.endswith((".json", ".md", ".txt")) and size > LARGEST_TEXT:
            raise PackageError(f"{path}: {name} has {size} bytes; a text in a package has at most {LARGEST_TEXT}.")
