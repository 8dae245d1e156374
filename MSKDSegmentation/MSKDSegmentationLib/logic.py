"""What the module can do: segment a volume, blocking or in the background, and take the last run back."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .catalogue import ModelEntry, choose, find_models, model_folders
from .client import Message, WorkerClient
from .environment import worker_command, worker_environment
from .errors import CancelledError, SegmentationError
from .install import install_missing, missing
from .private_folder import sweep_stale_folders
from .run import Outcome, Run
from .transport import SubprocessTransport, Transport
from .undo import UndoStep

POLL_SECONDS = 0.1

Listener = Callable[[Message], None]


class SegmentationLogic:
    """One worker in the background for the panel, one for blocking calls; both start when first needed and stay warm.

    Args:
        module_folder: Where ``MSKDSegmentation.py`` lies.
        transport: Makes the worker process of ``start`` (default: a QProcess).
        blocking_transport: Makes the worker process of ``process``.
        install: Installs what the worker needs; gets whether questions may be asked.
    """

    def __init__(
        self,
        module_folder: Path,
        transport: Callable[[], Transport] | None = None,
        blocking_transport: Callable[[], Transport] = SubprocessTransport,
        install: Callable[[Path, bool], None] = install_missing,
    ) -> None:
        self.module_folder = module_folder
        self._requirements = module_folder / "Resources" / "requirements.txt"
        self._install = install
        self._background = self._client(transport or _qt_transport)
        self._blocking = self._client(blocking_transport)
        self._undo = UndoStep()

    @property
    def busy(self) -> bool:
        """A run that ``start`` began is not over."""
        return self._background.busy

    def models(self) -> list[ModelEntry]:
        """Bundled models, then the user's."""
        return find_models(model_folders(self.module_folder))

    def missing(self) -> list[str]:
        """The packages that the first run will install."""
        return missing(self._requirements)

    def start(
        self, run: Run, on_event: Listener, on_done: Callable[[Outcome], None], *, interactive: bool = True
    ) -> None:
        """Begin ``run`` in the background; ``on_event`` hears its progress, ``on_done`` its outcome, once.

        Raises:
            SegmentationError: it cannot begin.
        """
        self._begin(self._background, run, on_event, on_done, interactive)

    def process(
        self,
        volume: Any,
        model: str | os.PathLike[str],
        segmentation: Any = None,
        *,
        device: str = "auto",
        region: Any = None,
        uncertainty: Any = None,
        on_event: Listener | None = None,
    ) -> Any:
        """Segment ``volume`` and return the segmentation node (made if none is given); works without a window.

        Args:
            model: Name of a bundled or user model, or a model folder.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            region: Markups ROI node, or (minimum, maximum) points in RAS mm.
            uncertainty: Scalar volume node to fill with the entropy of each voxel, in percent of the largest possible;
                0 outside the region.

        Raises:
            SegmentationError: with a sentence for the user; the scene is untouched then.
        """
        outcomes: list[Outcome] = []
        run = Run(volume, choose(self.models(), model), segmentation, device, region, uncertainty)
        self._begin(self._blocking, run, on_event or _ignore, outcomes.append, interactive=False)
        try:
            while not outcomes:
                self._blocking.poll(POLL_SECONDS)
        except BaseException:
            self._blocking.stop()  # Ctrl-C, or a listener's error: the worker must not run on.
            raise
        outcome = outcomes[0]
        if outcome.cancelled:
            raise CancelledError("The segmentation was cancelled; nothing was written.")
        if outcome.error:
            raise SegmentationError(outcome.error)
        return outcome.segmentation

    def poll(self) -> None:
        """Deliver news of the background run; call it from a timer while busy."""
        self._background.poll()

    def cancel(self) -> None:
        """Ask the background run to stop; it is killed if it does not within seconds."""
        self._background.cancel()

    def can_undo(self) -> bool:
        """Whether the last result can still be taken back."""
        return self._undo.available()

    def undo(self) -> bool:
        """Take the last run back in one step; False when it was edited since."""
        return self._undo.restore()

    def forget_scene(self) -> None:
        """The scene is closing: nothing of it may be written to or kept."""
        if self.busy:
            self._background.stop()
        self._undo.forget()

    def stop(self) -> None:
        """End both workers."""
        self._background.stop()
        self._blocking.stop()
        self._undo.forget()

    def _client(self, transport: Callable[[], Transport]) -> WorkerClient:
        return WorkerClient(transport, worker_command, lambda: worker_environment(self.module_folder))

    def _begin(
        self, client: WorkerClient, run: Run, on_event: Listener, on_done: Callable[[Outcome], None], interactive: bool
    ) -> None:
        def hear(message: Message) -> None:
            if message["type"] == "event":
                on_event(message)
            else:
                on_done(self._finish(run, message))

        try:
            if not client.alive:
                sweep_stale_folders()
                self._install(self._requirements, interactive)
            client.run(run.request, hear)
        except BaseException:
            run.close()
            raise

    def _finish(self, run: Run, message: Message) -> Outcome:
        try:
            if message["type"] == "cancelled":
                return Outcome(cancelled=True)
            if message["type"] == "error":
                return Outcome(error=str(message.get("message") or "The segmentation engine failed without a reason."))
            return run.write(message, self._undo)
        except SegmentationError as error:
            return Outcome(error=str(error))
        except Exception as fault:
            # Whoever waits for the outcome must get one: Qt would only print an error raised here.
            logging.exception("The result of a segmentation run could not be written.")
            return Outcome(error=f"The result could not be written ({type(fault).__name__}: {fault}).")
        finally:
            run.close()


def _qt_transport() -> Transport:
    # Imported when needed: headless use has no Qt.
    from .qt_transport import QtTransport

    return QtTransport()


def _ignore(message: Message) -> None:
    """For a caller that does not follow the progress."""
