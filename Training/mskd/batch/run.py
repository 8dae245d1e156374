"""A folder of cases: what is done already is kept, the rest goes to one engine, several processes or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mskd.batch.case import Case
from mskd.batch.cluster import run_cluster
from mskd.batch.ledger import AGAIN, Ledger
from mskd.batch.outcome import Outcome
from mskd.batch.pool import Pool
from mskd.batch.record import settle
from mskd.batch.stream import run_stream
from mskd.batch.task import EngineOptions, Task
from mskd.batch.workspace import workspace
from mskd.errors import Cancelled, SettingsError
from mskd.events import CancelCheck, Listener, never, silent
from mskd.inference.environment import choose_device
from mskd.inference.memory import free_bytes


@dataclass(frozen=True)
class Place:
    """Where to compute.

    Args:
        devices: One process each, unless there is one.
        jobs: Processes on each device.
        scheduler: Address of a Dask scheduler instead.

    Raises:
        SettingsError: what does not go together, or a device twice.
    """

    devices: tuple[str, ...] = ("auto",)
    jobs: int = 1
    scheduler: str = ""

    def __post_init__(self) -> None:
        if len(set(self.devices)) < len(self.devices):
            raise SettingsError(
                f"--device {','.join(self.devices)}: names a device twice; for several processes, --jobs."
            )
        if self.jobs < 1:
            raise SettingsError(f"--jobs {self.jobs}: at least one process is needed.")
        if self.scheduler and self.processes > 1:
            raise SettingsError(
                "--scheduler: how many processes there are is for the cluster to say; leave out --jobs."
            )

    @property
    def processes(self) -> int:
        """How many processes compute; 1 means this one."""
        return self.jobs * len(self.devices)

    def workers(self, options: EngineOptions, cases: int) -> list[EngineOptions]:
        """The options of each process's engine, no more than there are cases: all devices before a second process each.

        Raises:
            SettingsError: there is no such device.
        """
        memory = {name: options.memory or self._share(name) for name in self.devices}
        every = [replace(options, device=name, memory=memory[name]) for _ in range(self.jobs) for name in self.devices]
        return every[:cases]

    def _share(self, name: str) -> int | None:
        """What a process may plan with; several on one device would each plan with all that is free."""
        device = choose_device(name)
        return free_bytes(device) // self.jobs if self.jobs > 1 else None


def segment_folder(
    cases: Sequence[Case],
    task: Task,
    place: Place | None = None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    listen: Listener = silent,
    cancelled: CancelCheck = never,
) -> Ledger:
    """Segment every case; one that fails does not stop the others.

    Args:
        place: Where to compute; None is this process, on the device of the task's options.
        tell: Given each outcome as it comes, perhaps in another thread.
        listen: Told the phase ``cases``.

    Raises:
        SettingsError: a result would replace an image, or another run is at work there. Cancelled: on request.
            InputError: the disk is full, or the cluster was lost. MSKDError: no engine can be made. Whatever is raised,
            results that are done stay, whole, and the next run keeps them.
    """
    _spare_images(cases)
    ledger = Ledger(cases, task.folder, tell, listen)
    with workspace(task.folder):
        try:
            rest = _settle_all(cases, task, ledger, cancelled)
            if rest:
                _segment(rest, task, place or Place((task.options.device,)), ledger, cancelled)
        except Cancelled as fault:
            raise Cancelled(f"The segmentation was cancelled. {ledger.summary()} {AGAIN}") from fault
    return ledger


def _spare_images(cases: Sequence[Case]) -> None:
    images = {path.resolve() for case in cases for path in case.paths}
    for case in cases:
        if case.output.resolve() in images:
            raise SettingsError(
                f"{case.output}: this is an image that is to be segmented; choose another folder for results."
            )


def _settle_all(cases: Sequence[Case], task: Task, ledger: Ledger, cancelled: CancelCheck) -> list[Case]:
    """The cases that are to be done."""
    rest = []
    for case in cases:
        if cancelled():
            raise Cancelled("Cancelled before the first case.")
        try:
            outcome = settle(case, task)
        except Exception as fault:
            outcome = Outcome.failed(case.name, fault)
        if outcome is None:
            rest.append(case)
        else:
            ledger.add(outcome)
    return rest


def _segment(cases: list[Case], task: Task, place: Place, ledger: Ledger, cancelled: CancelCheck) -> None:
    if place.scheduler:
        shared = replace(task, folder=task.folder.absolute())
        run_cluster([case.absolute() for case in cases], shared, place.scheduler, ledger.add, cancelled)
    elif place.processes > 1:
        Pool(task, place.workers(task.options, len(cases)), cases, ledger.add).run(cancelled)
    else:
        run_stream(task.build_engine(), iter(cases), task, ledger.add, ledger.progress, cancelled)
