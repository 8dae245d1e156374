"""Prepared cases on disk: what is there already is opened as memory maps, what is missing or stale is prepared."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from mskd.data.arrays import ArrayStore, file_digest, open_array, read_entry
from mskd.data.dataset import Case, Dataset
from mskd.data.prepared import PreparedCase, prepare_case
from mskd.data.workers import run_jobs, stop_if
from mskd.errors import InputError
from mskd.events import CancelCheck, Event, Listener, never, silent
from mskd.inference import InputSpec
from mskd.spec import ImageFacts, validate

FORMAT = 1
"""Raised whenever the same files and settings would be prepared differently."""
OPEN_CASES = 64
"""Cases that a process keeps open: each takes three of its file descriptors."""
BYTES_A_WORKER = 256 << 20
"""Unprepared bytes for which one more process is worth its start of some seconds."""

BadCases = Literal["stop", "skip"]


@dataclass(frozen=True)
class StoredCase:
    """A case in the store. ``key`` is the hash of its content; ``more`` names further arrays and their folders."""

    id: str
    key: str
    folder: Path
    more: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Problem:
    """A case that was left out, and why."""

    case: str
    reason: str


class StoredCases(Sequence[PreparedCase]):
    """Prepared cases, opened one by one when they are asked for. Pickles as paths, whatever the cases weigh.

    Args:
        problems: The cases that were left out because they cannot be prepared.
    """

    def __init__(self, store: ArrayStore, cases: Sequence[StoredCase], problems: Sequence[Problem] = ()) -> None:
        self.store = store
        self.cases = tuple(cases)
        self.problems = tuple(problems)

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, index: int) -> PreparedCase: ...
    @overload
    def __getitem__(self, index: slice) -> StoredCases: ...
    def __getitem__(self, index: int | slice) -> PreparedCase | StoredCases:
        if isinstance(index, slice):
            return StoredCases(self.store, self.cases[index])
        return _open(self.cases[index])

    def extend(
        self,
        name: str,
        key: str,
        compute: Callable[[PreparedCase], np.ndarray],
        *,
        phase: str = "prepare",
        on_event: Listener = silent,
        cancelled: CancelCheck = never,
    ) -> StoredCases:
        """The same cases with one more field, computed for those that the store does not hold it for.

        Args:
            name: A field of ``PreparedCase`` ("logits").
            key: Says what ``compute`` depends on besides the case (a teacher's fingerprint).

        Raises:
            InputError: the disk is full. Cancelled: asked to stop; what was computed is kept.
        """
        extended = []
        for index, case in enumerate(self.cases):
            stop_if(cancelled)
            own = hashlib.sha256(f"{case.key} {name} {key}".encode()).hexdigest()
            folder = self.store.find(own) or self.store.put(own, {name: compute(self[index])})
            extended.append(replace(case, more=(*case.more, (name, folder))))
            on_event(Event(phase, index + 1, len(self)))
        return StoredCases(self.store, extended, self.problems)


@lru_cache(maxsize=OPEN_CASES)
def _open(case: StoredCase) -> PreparedCase:
    about = read_entry(case.folder).about
    voxels = open_array(case.folder, "foreground")
    bounds = about["foreground"]
    return PreparedCase(
        id=case.id,
        image=open_array(case.folder, "image"),
        labels=open_array(case.folder, "labels") if about["labelled"] else None,
        spacing=tuple(about["spacing"]),
        foreground={value: voxels[start:stop] for value, start, stop in bounds},
        facts=_facts(about.get("facts"), case.folder),
        **{name: open_array(folder, name) for name, folder in case.more},
    )


def _facts(found: Mapping[str, Any] | None, folder: Path) -> ImageFacts | None:
    """None for an entry of a version that did not measure them: the voxels are the same, so it stays in use."""
    return None if found is None else validate(ImageFacts, found, source=str(folder), error=InputError)


def prepare_cases(
    dataset: Dataset,
    cases: Sequence[Case],
    spec: InputSpec,
    store: ArrayStore,
    *,
    jobs: int = 0,
    bad_cases: BadCases = "stop",
    phase: str = "prepare",
    on_event: Listener = silent,
    cancelled: CancelCheck = never,
) -> StoredCases:
    """Prepare the cases that the store does not hold, one at a time in each process, and open all of them lazily.

    Args:
        jobs: Processes that prepare; 0 chooses by the amount of work and the cores.
        bad_cases: What a case that cannot be prepared does: ``stop`` raises its fault, ``skip`` leaves it out and
            lists it in ``problems``.

    Raises:
        InputError: a faulty case; the disk is full. Cancelled: asked to stop; what was prepared is kept.
    """
    store.sweep()
    keys, problems = _keys(dataset, cases, spec, cancelled)
    _require(not problems or bad_cases == "skip", problems)
    missing = [case for case in cases if case.id in keys and store.find(keys[case.id]) is None]
    # Processes that fill one store at the same time (the ranks of a run) should not walk in step.
    random.Random(os.getpid()).shuffle(missing)
    bare = replace(dataset, cases=())
    tasks = [(_fill, (store, keys[case.id], bare, case, spec)) for case in missing]
    done = len(keys) - len(missing)
    on_event(Event(phase, done, len(keys)))
    for problem in run_jobs(tasks, jobs or worth(missing), cancelled):
        if problem is not None:
            problems.append(problem)
            _require(bad_cases == "skip", problems)
        done += 1
        on_event(Event(phase, done, len(keys)))
    faulty = {problem.case for problem in problems}
    sound = [case.id for case in cases if case.id not in faulty]
    stored = [StoredCase(name, keys[name], store.folder / keys[name]) for name in sound]
    _open.cache_clear()  # an entry may have been written again
    return StoredCases(store, stored, sorted(problems, key=lambda problem: problem.case))


def case_key(dataset: Dataset, case: Case, spec: InputSpec) -> str:
    """SHA-256 of all that decides a prepared case; see :func:`content_key`."""
    return content_key(
        dataset,
        case,
        {
            "prepared": FORMAT,
            "spacing": spec.spacing,
            "orientation": spec.orientation,
            "normalization": spec.normalization.model_dump(),
        },
    )


def content_key(dataset: Dataset, case: Case, settings: Mapping[str, Any]) -> str:
    """SHA-256 of these settings, what the data set says of its channels and labels, and the bytes of the case's files.

    Raises:
        InputError: a file cannot be read.
    """
    # All fields but these, so that none that gives the voxels another meaning can be forgotten.
    aside = ("name", "path", "cases", "parts", "licence", "citation")
    meaning = {field.name: repr(getattr(dataset, field.name)) for field in fields(dataset) if field.name not in aside}
    about = {**settings, "data set": meaning, "labelled": case.labels is not None}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path in (*case.images, *([case.labels] if case.labels else [])):
        try:
            for file in _files_of(path):
                digest.update(file_digest(file).encode())
        except OSError as fault:
            raise InputError(f"{path}: cannot be read ({fault.strerror or fault}); restore the file.") from fault
    return digest.hexdigest()


def _files_of(path: Path) -> Iterator[Path]:
    """A file, what a detached header points to, or the files of a DICOM folder."""
    if path.is_dir():
        yield from sorted(file for file in path.iterdir() if file.is_file())
        return
    yield path
    if path.suffix in (".mhd", ".nhdr"):
        for line in path.read_text(encoding="latin-1").splitlines():
            name, _, value = line.replace("=", ":", 1).partition(":")
            data = path.parent / value.strip()
            if name.strip().lower() in ("elementdatafile", "data file") and data.is_file():
                yield data


def _keys(
    dataset: Dataset, cases: Sequence[Case], spec: InputSpec, cancelled: CancelCheck
) -> tuple[dict[str, str], list[Problem]]:
    """Case id -> key, and the cases whose files cannot be read."""

    def key(case: Case) -> str | Problem:
        stop_if(cancelled)
        try:
            return case_key(dataset, case, spec)
        except InputError as fault:
            return Problem(case.id, str(fault))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing leaves Python to the other threads
        found = dict(zip((case.id for case in cases), pool.map(key, cases), strict=True))
    return (
        {name: value for name, value in found.items() if isinstance(value, str)},
        [value for value in found.values() if isinstance(value, Problem)],
    )


def _fill(store: ArrayStore, key: str, dataset: Dataset, case: Case, spec: InputSpec) -> Problem | None:
    """Prepare one case into the store, unless another process has done so in the meantime."""
    if store.find(key) is not None:
        return None
    try:
        prepared = prepare_case(dataset, case, spec)
    except InputError as fault:
        return Problem(case.id, str(fault))
    voxels, bounds, start = [np.empty((0, 3), np.int32)], [], 0
    for value, found in sorted(prepared.foreground.items()):
        voxels.append(found.astype(np.int32))
        bounds.append((value, start, start + len(found)))
        start += len(found)
    arrays = {"image": prepared.image, "foreground": np.concatenate(voxels)}
    if prepared.labels is not None:
        arrays["labels"] = prepared.labels
    about = {"spacing": prepared.spacing, "foreground": bounds, "labelled": prepared.labels is not None}
    if prepared.facts is not None:
        about["facts"] = prepared.facts.model_dump(mode="json")
    store.put(key, arrays, about)
    return None


def worth(cases: Iterable[Case]) -> int:
    """How many processes reading these cases is worth."""
    size = sum(path.stat().st_size for case in cases for path in case.images if path.is_file())
    return max(1, min(os.cpu_count() or 1, size // BYTES_A_WORKER))


def _require(met: bool, problems: Sequence[Problem]) -> None:
    if not met:
        raise InputError(problems[-1].reason)
