"""The three steps of a case in a folder; each ends in what the next needs, or in the outcome."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import Any

from mskd.batch.case import Case, Loaded, Made, compute_case, read_case, write_case
from mskd.batch.outcome import Outcome
from mskd.batch.record import made_from, settle, write_record
from mskd.batch.task import Task
from mskd.batch.workspace import has_room, writing_folder
from mskd.errors import Cancelled, InputError
from mskd.events import CancelCheck, Listener
from mskd.image.write import label_suffix
from mskd.inference import Engine


@dataclass(frozen=True)
class Begun:
    """A case with its image, and what its files were before they were read."""

    loaded: Loaded
    sources: dict[str, Any]


@dataclass(frozen=True)
class Computed:
    """A case with its labels."""

    made: Made
    sources: dict[str, Any]


def begin(case: Case, task: Task) -> Begun | Outcome:
    """Read the image, unless the result is there already: a worker may have died after it wrote, before it told."""
    try:
        settled = settle(case, task)
        if settled is not None:
            return settled
        sources = made_from(case, task)
        return Begun(read_case(case), sources)
    except Exception as fault:
        return Outcome.failed(case.name, fault)


def compute(engine: Engine, begun: Begun, task: Task, listen: Listener, cancelled: CancelCheck) -> Computed | Outcome:
    """Find the labels.

    Raises:
        Cancelled: on request.
    """
    try:
        return Computed(compute_case(engine, begun.loaded, task.region, listen, cancelled), begun.sources)
    except Cancelled:
        raise
    except Exception as fault:
        return Outcome.failed(begun.loaded.case.name, fault)


def finish(computed: Computed, task: Task) -> Outcome:
    """Write the result: the whole file first, then its record, and then it takes its place."""
    case = computed.made.case
    whole = writing_folder(task.folder) / f"{secrets.token_hex(8)}{label_suffix(case.output)}"
    try:
        entry = {"case": case.name, **write_case(computed.made, whole)}
        write_record(case, task, computed.sources, whole, entry)
        os.replace(whole, case.output)
        return Outcome(case.name, entry)
    except (InputError, OSError) as fault:
        fault = InputError(f"{case.output} cannot be written: {str(fault).replace(str(whole), 'it')}")
        return Outcome.failed(case.name, fault, stops=not has_room(task.folder))
    except Exception as fault:
        return Outcome.failed(case.name, fault)
