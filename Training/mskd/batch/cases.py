"""Which cases a folder holds."""

from __future__ import annotations

from pathlib import Path

from mskd.errors import SettingsError
from mskd.image.read import image_stem


def find_cases(folder: Path, channels: int) -> dict[str, tuple[Path, ...]] | None:
    """The files of each case by name, or None when the folder is one image.

    A folder with image files is a folder of cases; for a model of several channels their names end in _0000, _0001,
    ... A folder of nothing but folders is a folder of DICOM cases; any other folder is one DICOM case.

    Raises:
        SettingsError: two files would give the same result.
    """
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    cases: dict[str, tuple[Path, ...]] = {}
    for entry in entries:
        name = image_stem(entry)
        if name is None or not entry.is_file():
            continue
        if channels > 1 and name[-5:-4] == "_" and name[-4:].isdigit():
            name = name[:-5]
        elif name in cases:
            raise SettingsError(f"{entry}: two files would give the result '{name}'; rename one of them.")
        cases[name] = (*cases.get(name, ()), entry)
    if not cases and entries and all(entry.is_dir() for entry in entries):
        cases = {entry.name: (entry,) for entry in entries}
    return cases or None
