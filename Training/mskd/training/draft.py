"""A recipe as it was written: what it leaves out is planned from the data set before anything runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mskd.errors import SettingsError
from mskd.spec import validate, validate_draft
from mskd.training.settings import Recipe, read_recipe


@dataclass(frozen=True)
class Draft:
    """Keys that exist, with values of the right kind, some of them missing.

    Args:
        source: Where it was read, for messages.
        data: The TOML file's sections with overrides.
    """

    source: str
    data: dict[str, Any]

    def get(self, key: str) -> Any:
        """The value under a dotted key; None when the draft leaves it out."""
        found: Any = self.data
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                return None
            found = found[part]
        return found

    def complete(self, planned: Mapping[str, Any]) -> Recipe:
        """The recipe with planned values (by dotted key) where this draft has none.

        Raises:
            SettingsError: still incomplete, or values that contradict one another.
        """
        data = copy.deepcopy(self.data)
        for key, value in planned.items():
            *sections, last = key.split(".")
            section = data
            for part in sections:
                section = section.setdefault(part, {})
            section.setdefault(last, value)
        return validate(Recipe, data, source=self.source, error=SettingsError)


def load_draft(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe | Draft:
    """Read a recipe by path or name, with overrides: the recipe itself when it leaves nothing to plan.

    Raises:
        SettingsError: not found, not TOML, an unknown key, a value of the wrong kind.
    """
    source, data = read_recipe(name_or_path, overrides)
    return validate_draft(Recipe, data, source=source, error=SettingsError) or Draft(source, data)
