"""The record of a result: from what it was made, so that a later run knows whether it is done.

``RESULTS/.mskd/NAME.json`` is written before the result takes its place, with the hash of what is about to. However a
run ends, a result is therefore done exactly when its record tells of this very file, made from the same input by the
same model with the same settings.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mskd import __version__
from mskd.batch.case import Case
from mskd.batch.outcome import Outcome
from mskd.batch.task import Task
from mskd.batch.workspace import records_folder
from mskd.errors import SettingsError
from mskd.files import write_text
from mskd.image.write import check_output

BLOCK = 1 << 20
CHANGES = {
    "inputs": "its input has changed since",
    "model": "another model made it",
    "region": "it was made for another region of interest",
    "options": "it was made with other options",
    "mskd": "another version of mskd made it",
}


def made_from(case: Case, task: Task) -> dict[str, Any]:
    """All that a result depends on, as JSON would give it back; the device is left out."""
    region = task.region and [list(task.region.minimum), list(task.region.maximum)]
    sources = {
        "inputs": [_stamp(path, top.parent) for top in case.paths for path in _files(top)],
        "model": task.fingerprint,
        "region": region,
        "options": task.options.altering(),
        "mskd": __version__,
    }
    return dict(json.loads(json.dumps(sources)))


def settle(case: Case, task: Task) -> Outcome | None:
    """The outcome of a case whose result is there already; None when it is to be made.

    Raises:
        SettingsError: a result that was made otherwise, or by something else, is in the way and must not be replaced.
    """
    change = ""
    if case.output.is_file():
        record = _read(case, task)
        if record is None or record.get("sha256") != _digest(case.output):
            change = "it is not, or no longer, what was written here"
        else:
            sources = made_from(case, task)
            changed = [key for key in CHANGES if record["made_from"].get(key) != sources[key]]
            if not changed:
                return _outcome(case, record["entry"], kept=record["run"] != task.run)
            change = CHANGES[changed[0]]
    try:
        check_output(case.output, overwrite=task.overwrite)
    except SettingsError as fault:
        raise SettingsError(f"{fault} It was kept: {change}." if change else str(fault)) from None
    return None


def _outcome(case: Case, entry: dict[str, Any], *, kept: bool) -> Outcome:
    """As the record has it, with the places where things are now."""
    places = {"input": [str(path) for path in case.paths], "output": str(case.output)}
    return Outcome(case.name, {**entry, **places, **({"kept": True} if kept else {})}, kept=kept)


def write_record(case: Case, task: Task, sources: dict[str, Any], whole: Path, entry: dict[str, Any]) -> None:
    """Tell that the file ``whole``, made from ``sources``, is about to become the result.

    Raises:
        InputError: the disk is full or not writable.
    """
    record = {"run": task.run, "made_from": sources, "sha256": _digest(whole), "entry": entry}
    write_text(_place(case, task), json.dumps(record, indent=1) + "\n")


def _read(case: Case, task: Task) -> dict[str, Any] | None:
    """The record of a case; None when there is none, or none that can be used."""
    try:
        record = json.loads(_place(case, task).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fields = {"run": str, "made_from": dict, "sha256": str, "entry": dict}
    whole = isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in fields.items())
    return record if whole else None


def _place(case: Case, task: Task) -> Path:
    return records_folder(task.folder) / f"{case.output.name}.json"


def _files(path: Path) -> list[Path]:
    return sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]


def _stamp(path: Path, folder: Path) -> list[Any]:
    """Name, bytes and time of change: what make and rsync go by. The folder may be moved."""
    name = path.relative_to(folder).as_posix()
    try:
        stat = path.stat()
    except OSError:  # reading it will say why
        return [name, None, None]
    return [name, stat.st_size, stat.st_mtime_ns]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
