"""What the numbers in a data set's description mean: label values and channels, checked once for every layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mskd.errors import InputError
from mskd.image.read import LARGEST_FILE_VALUE
from mskd.spec import IGNORE, MOST_CHANNELS, Channel, Label
from mskd.spec.labels import LONGEST_NAME

# Okabe and Ito's palette (2008) without its black: told apart by colour-blind eyes too.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
IGNORED_NAME = "ignore"
MODALITIES = {
    **dict.fromkeys(("mr", "mri", "t1", "t1w", "t1gd", "t1ce", "t2", "t2w", "flair", "adc", "dwi"), "MR"),
    **dict.fromkeys(("pet", "pt"), "PT"),
    "ct": "CT",
    "us": "US",
}


@dataclass(frozen=True)
class Legend:
    """The labels of a data set, the value of each in its files, and the value of ignored voxels there."""

    labels: tuple[Label, ...]
    file_values: tuple[int, ...]
    ignore: int | None


def make_legend(source: Path, entries: object) -> Legend:
    """The legend of a table of label values and names, whichever of the two is the key.

    0 is background, the name "ignore" marks the voxels that neither teach nor count; the rest are labels, in order of
    their value and with distinct colours.

    Raises:
        InputError: no table, no label, more than 254, a value or name that is none, or one that comes twice.
    """
    if not isinstance(entries, Mapping):
        raise InputError(
            f'{source}: the labels must map values to names, like {{"1": "liver"}}, and are {entries!r:.60}.'
        )
    pairs = [_label(source, key, value) for key, value in entries.items()]
    for kind, found in (("value", [value for value, _ in pairs]), ("name", [name for _, name in pairs])):
        repeated = [entry for entry, times in Counter(found).items() if times > 1]
        if repeated:
            raise InputError(f"{source}: two labels have the {kind} '{repeated[0]}'; give each one of its own.")
    names = {value: name for value, name in sorted(pairs) if value}
    ignored = [value for value, name in names.items() if name.lower() == IGNORED_NAME]
    values = tuple(value for value in names if value not in ignored)
    if len(ignored) > 1 or not 1 <= len(values) < IGNORE:
        raise InputError(
            f"{source}: names {len(values)} labels beside background and {len(ignored)} that are ignored; a data set "
            f"has 1 to {IGNORE - 1} labels, and at most one '{IGNORED_NAME}'."
        )
    labels = tuple(
        Label(value=index + 1, name=names[value], color=PALETTE[index % len(PALETTE)])
        for index, value in enumerate(values)
    )
    return Legend(labels, values, ignored[0] if ignored else None)


def make_channels(source: Path, names: object) -> tuple[Channel, ...]:
    """Channels in order of their numbers; what is known of a name ("CT", "T1") gives the modality.

    Raises:
        InputError: no table, or other numbers than 0, 1, 2, ... up to at most 15.
    """
    if not isinstance(names, Mapping) or not names:
        raise InputError(f'{source}: must map channel numbers to names, like {{"0": "CT"}}, and holds {names!r:.60}.')
    numbers = sorted(int(key) for key in names if str(key).isdecimal())
    if numbers != list(range(len(names))) or len(names) > MOST_CHANNELS:
        raise InputError(
            f"{source}: has {len(names)} channels {sorted(map(str, names))!r:.60}; they are numbered 0, 1, 2, ... and "
            f"at most {MOST_CHANNELS}."
        )
    ordered = sorted(names.items(), key=lambda item: int(item[0]))
    return tuple(Channel(name=str(name), modality=MODALITIES.get(str(name).lower(), "OT")) for _, name in ordered)


def _label(source: Path, key: object, value: object) -> tuple[int, str]:
    number, name = (key, value) if str(key).isdecimal() else (value, key)
    if isinstance(number, (list, tuple)):
        raise InputError(
            f"{source}: label {name!r:.80} is a region of the values {list(number)!r:.80}; regions that overlap cannot "
            "be learnt here, so name each value as a label of its own."
        )
    if not str(number).isdecimal() or not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME:
        raise InputError(
            f"{source}: the labels have the entry {key!r:.80}: {value!r:.80}; a label is one integer and a name of 1 "
            f"to {LONGEST_NAME} characters."
        )
    if int(str(number)) > LARGEST_FILE_VALUE:
        raise InputError(f"{source}: label '{name}' has the value {number}; the largest is {LARGEST_FILE_VALUE}.")
    return int(str(number)), name
