"""Things found by name: drop a file into a package, decorate what it holds, and it is there.

A registry imports the modules of its package on first use, so adding a method, student, teacher format, data
layout or backend means adding one file and touching no other.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from mskd.errors import SettingsError
from mskd.spec.base import suggestion

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries of one kind, by name.

    Args:
        kind: What an entry is called in messages ("network").
        package: Dotted name of the package whose modules register entries when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that files its object under ``name``; a name can be taken once."""

        def add(entry: Entry) -> Entry:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> Entry:
        self._load()
        if name not in self._entries:
            raise SettingsError(f"There is no {self.kind} {name!r:.80}{suggestion(name, self.names())}")
        return self._entries[name]

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._loaded = True
