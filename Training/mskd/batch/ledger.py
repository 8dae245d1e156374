"""What has become of the cases of a run so far, told to whoever listens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mskd.batch.case import Case
from mskd.batch.outcome import Outcome
from mskd.errors import InputError
from mskd.events import Event, Listener

PHASE = "cases"
AGAIN = "The same command does the rest."


class Ledger:
    """Collects the outcome of each case, in whatever order and from whatever thread they come.

    Args:
        cases: All of the run.
        folder: Where the results go, for sentences.
        tell: Given each outcome.
        listen: Told how many cases are over, and what goes on in between.
    """

    def __init__(self, cases: Sequence[Case], folder: Path, tell: Callable[[Outcome], None], listen: Listener) -> None:
        self._names = [case.name for case in cases]
        self._folder, self._tell, self._listen = folder, tell, listen
        self._outcomes: dict[str, Outcome] = {}
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        """Take down an outcome.

        Raises:
            InputError: nothing more can be written, so that the run must end.
        """
        with self._lock:
            self._outcomes[outcome.case] = outcome
            self._tell(outcome)
            self._listen(Event(PHASE, len(self._outcomes), len(self._names)))
        if outcome.stops:
            raise InputError(f"{outcome.error} The disk is full, or closed to writing. {self.summary()} {AGAIN}")

    def progress(self, case: str, event: Event) -> None:
        """Pass on what the engine does for a case."""
        count = f" {event.done}/{event.total}" if event.total > 1 else ""
        with self._lock:
            self._listen(Event(PHASE, len(self._outcomes), len(self._names), f"{case}: {event.phase}{count}"))

    def outcomes(self) -> list[Outcome]:
        """In the order of the cases."""
        return [self._outcomes[name] for name in self._names if name in self._outcomes]

    def summary(self) -> str:
        """How many results there are, as a sentence."""
        made = [outcome for outcome in self._outcomes.values() if not outcome.error]
        kept = sum(outcome.kept for outcome in made)
        before = f" ({kept} from before)" if kept else ""
        return f"{len(made)} of {len(self._names)} cases are in {self._folder}{before}."
