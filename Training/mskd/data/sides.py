"""Left and right in the names of labels: which labels trade places when an image is mirrored."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from mskd.spec import Label

LEFT, RIGHT = "left", "right"
WORDS = {LEFT: LEFT, "lt": LEFT, "lh": LEFT, RIGHT: RIGHT, "rt": RIGHT, "rh": RIGHT}
LETTERS = {"l": LEFT, "r": RIGHT}  # only where a name begins or ends, as in "L kidney" and "Kidney_L"
# "LeftParotid" -> Left Parotid, "RParotid" -> R Parotid; "L5" and "LV" stay whole.
CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
Sided = tuple[str, tuple[str, ...]]


def mirror_pairs(labels: Iterable[Label]) -> tuple[tuple[int, int], ...]:
    """(left, right) values of labels whose names differ in their side alone, in order of the left value."""
    found = [(sides[LEFT][0].value, sides[RIGHT][0].value) for sides in _by_organ(labels) if _is_pair(sides)]
    return tuple(sorted(found))


def one_sided(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Labels with a side in their name and no partner, in order of value: these forbid mirroring left to right."""
    found = [label for sides in _by_organ(labels) if not _is_pair(sides) for label in (*sides[LEFT], *sides[RIGHT])]
    return tuple(sorted(found, key=lambda label: label.value))


def side_of(name: str) -> Sided | None:
    """The side that a name speaks of, and its other words; None for a name with none, or with both."""
    words = tuple(re.findall(r"[^\W_]+", CAPITAL.sub(" ", name).lower()))
    sides = {index: WORDS[word] for index, word in enumerate(words) if word in WORDS}
    if not sides:
        sides = {index: LETTERS[words[index]] for index in (0, len(words) - 1) if words and words[index] in LETTERS}
        if 0 in sides and words[1:2] and words[1].isdecimal():  # "L 5" is a vertebra
            del sides[0]
    if len(set(sides.values())) != 1:
        return None
    return next(iter(sides.values())), tuple(word for index, word in enumerate(words) if index not in sides)


def _by_organ(labels: Iterable[Label]) -> list[dict[str, list[Label]]]:
    """side -> labels, for each organ that has a side."""
    labels = list(labels)
    names = {label.name.lower() for label in labels}
    organs: dict[tuple[str, ...], dict[str, list[Label]]] = defaultdict(lambda: {LEFT: [], RIGHT: []})
    for label in labels:
        found = side_of(label.name) or _glued(label.name.lower(), names)
        if found:
            organs[found[1]][found[0]].append(label)
    return list(organs.values())


def _glued(name: str, names: set[str]) -> Sided | None:
    """As in "leftkidney": within a word, a side is believed only if the same word with the other side is there too."""
    for side, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        if side in name and name.replace(side, other) in names:
            return side, (name.replace(side, ""),)
    return None


def _is_pair(sides: dict[str, list[Label]]) -> bool:
    return len(sides[LEFT]) == len(sides[RIGHT]) == 1
