"""The panel's behaviour: what is enabled and why not, Apply and Cancel, progress, and how a run ends."""

from __future__ import annotations

import contextlib
import html
import time
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .catalogue import ModelEntry
from .errors import SegmentationError
from .logic import SegmentationLogic
from .progress import describe, percent, summary
from .readiness import obstacle
from .region import advice, fit_region
from .run import Outcome, Run
from .uncertainty import is_uncertainty
from .watch import NodeWatch

POLL_MS = 100


class Panel:
    """Drives the widgets of ``MSKDSegmentation.ui``.

    Args:
        ui: The widgets by name.
        logic: Does the work.
    """

    def __init__(self, ui: Any, logic: SegmentationLogic) -> None:
        self.ui, self._logic = ui, logic
        self._parameters: Any = None
        self._models: dict[str, ModelEntry] = {}
        self._cancelling = self._beginning = False
        self._started = 0.0
        self._status = ""
        self._watch = NodeWatch(self._update_controls)
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.connect("timeout()", self._on_timer)
        self._fill_devices()
        self._fill_models()
        ui.applyButton.connect("clicked()", self._on_apply)
        ui.undoButton.connect("clicked()", self._on_undo)
        ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._on_region_added)
        ui.uncertaintySelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._on_uncertainty_added)
        ui.modelSelector.connect("currentIndexChanged(int)", self._on_model)
        ui.deviceSelector.connect("currentIndexChanged(int)", self._on_device)
        missing = ", ".join(logic.missing())
        self._rest(_("The first run will ask to install {packages}.").format(packages=missing) if missing else "")

    @property
    def running(self) -> bool:
        """A run is going on."""
        return self._logic.busy

    def show(self, parameters: Any) -> None:
        """Show another parameter node, or none (the scene is closing)."""
        self._parameters = parameters
        self.choose_volume()
        self.refresh()

    def choose_volume(self) -> None:
        """Choose the first image of the scene where none is chosen."""
        if self._parameters is not None and self._parameters.inputVolume is None:
            # By exact class: label maps are scalar volumes too, and nothing to segment.
            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            volumes = [node for node in volumes if node.GetClassName() == "vtkMRMLScalarVolumeNode"]
            images = [
                node for node in volumes if node is not self._parameters.uncertaintyVolume and not is_uncertainty(node)
            ]
            self._parameters.inputVolume = images[0] if images else None

    def refresh(self) -> None:
        """Bring the widgets in line with the parameter node."""
        parameters = self._parameters
        if parameters is not None:
            if not parameters.model and self._models:
                parameters.model = next(iter(self._models))
            _select(self.ui.modelSelector, parameters.model)
            _select(self.ui.deviceSelector, parameters.device)
        self._watch.watch(self._nodes())
        self._describe_model()
        self._update_controls()

    def scene_closes(self) -> None:
        """Stop the run, whose nodes are about to go."""
        self._logic.forget_scene()
        self._rest()
        self.show(None)

    def close(self) -> None:
        """The panel goes away for good."""
        self._timer.stop()
        self._parameters = None
        self._watch.watch(())
        self._logic.stop()

    def _nodes(self) -> tuple[Any, ...]:
        parameters = self._parameters
        if parameters is None:
            return ()
        return parameters.inputVolume, parameters.outputSegmentation, parameters.region, parameters.uncertaintyVolume

    def _fill_devices(self) -> None:
        choices = [(_("Automatic"), "auto"), (_("Processor (CPU)"), "cpu")]
        choices += [(_("NVIDIA graphics card (CUDA)"), "cuda"), (_("Apple graphics (MPS)"), "mps")]
        for text, device in choices:
            self.ui.deviceSelector.addItem(text, device)

    def _fill_models(self) -> None:
        self._models = {entry.name: entry for entry in self._logic.models()}
        for entry in self._models.values():
            self.ui.modelSelector.addItem(entry.title, entry.name)
        self.ui.modelSelector.enabled = bool(self._models)

    def _on_model(self) -> None:
        if self._parameters is not None and self.ui.modelSelector.currentIndex >= 0:
            self._parameters.model = self.ui.modelSelector.currentData

    def _on_region_added(self, region: Any) -> None:
        if self._parameters is not None and self._parameters.inputVolume is not None:
            fit_region(region, self._parameters.inputVolume, self._view())

    def _on_uncertainty_added(self, node: Any) -> None:
        if self._parameters is not None and self._parameters.inputVolume is not None:
            node.SetName(node.GetScene().GenerateUniqueName(f"{self._parameters.inputVolume.GetName()} uncertainty"))

    def _view(self) -> tuple[float, float, float] | None:
        model = self._models.get(self._parameters.model)
        return None if model is None else model.view

    def _on_device(self) -> None:
        if self._parameters is not None:
            self._parameters.device = self.ui.deviceSelector.currentData

    def _on_apply(self) -> None:
        if self.running:
            self._cancelling = True
            self._logic.cancel()
            self._tell(_("Cancelling…"))
            self._update_controls()
            return
        # tryWithErrorDisplay shows the sentence and raises again; what is written for the user ends here.
        with contextlib.suppress(SegmentationError), slicer.util.tryWithErrorDisplay():
            self._beginning = True
            try:
                self._begin()
            except BaseException:
                self._rest(_("Failed."))
                raise
            finally:
                self._beginning = False
                self._update_controls()

    def _begin(self) -> None:
        parameters = self._parameters
        installs = bool(self._logic.missing())
        self._update_controls()  # An installation lets events through: nothing may be changed or begun meanwhile.
        self._tell(_("Installing; this may take minutes…") if installs else _("Starting the engine…"))
        self.ui.progressBar.maximum = 0
        self.ui.progressBar.visible = True
        slicer.app.processEvents()
        volume, segmentation, region, uncertainty = self._nodes()
        run = Run(volume, self._models[parameters.model], segmentation, parameters.device, region, uncertainty)
        self._started = time.monotonic()
        self._logic.start(run, self._on_event, self._on_done)
        self._tell(_("Starting the engine; the first time takes a moment…"))
        self._timer.start()

    def _on_timer(self) -> None:
        self._logic.poll()

    def _on_event(self, event: dict[str, Any]) -> None:
        if self._cancelling:
            return
        self.ui.progressBar.maximum = 100
        self.ui.progressBar.value = percent(event)
        self._tell(describe(event))

    def _on_done(self, outcome: Outcome) -> None:
        if outcome.cancelled:
            self._rest(_("Cancelled; nothing was changed."))
        elif outcome.error:
            self._rest(_("Failed: {reason}").format(reason=outcome.error))
        else:
            self._rest(summary(outcome.report, outcome.labels, time.monotonic() - self._started))
            if self._parameters is not None:
                self._parameters.outputSegmentation = outcome.segmentation
        self._update_controls()
        if outcome.error:
            slicer.util.errorDisplay(outcome.error, windowTitle=_("MSKD Segmentation"))

    def _on_undo(self) -> None:
        undone = self._logic.undo()
        self._tell(_("The last run was taken back.") if undone else _("It was edited since: kept."))
        self._update_controls()

    def _rest(self, status: str = "") -> None:
        self._timer.stop()
        self._cancelling = False
        self.ui.progressBar.visible = False
        self.ui.progressBar.maximum = 100
        self.ui.progressBar.value = 0
        self._tell(status)

    def _tell(self, status: str) -> None:
        self._status = self.ui.statusLabel.text = status

    def _describe_model(self) -> None:
        entry = self._models.get(self._parameters.model) if self._parameters is not None else None
        lines = [] if entry is None else [entry.description, entry.intended_use, entry.problem]
        self.ui.modelLabel.text = "<br>".join(html.escape(line) for line in lines if line)
        self.ui.modelLabel.visible = any(lines)

    def _obstacle(self) -> str:
        parameters = self._parameters
        if parameters is None:
            return _("The scene is closed.")
        volume, *others = self._nodes()
        return obstacle(volume, self._models.get(parameters.model), parameters.model, *others)

    def _advice(self) -> str:
        parameters = self._parameters
        return advice(parameters.inputVolume, self._view()) if parameters.region is None else ""

    def _update_controls(self) -> None:
        running = self.running or self._beginning
        stoppable = self.running and not self._cancelling
        reason = "" if running else self._obstacle()
        self.ui.inputsButton.enabled = not running
        self.ui.advancedButton.enabled = not running
        self.ui.applyButton.text = _("Cancel") if running else _("Apply")
        self.ui.applyButton.enabled = stoppable if running else not reason
        self.ui.applyButton.toolTip = _("Stop; nothing is changed.") if running else reason or _("Segment the volume.")
        self.ui.regionLabel.text = "" if running or reason else self._advice()
        self.ui.regionLabel.visible = bool(self.ui.regionLabel.text)
        # A tooltip alone is not found: what is missing also stands in the status line.
        self.ui.statusLabel.text = reason or self._status
        self.ui.undoButton.enabled = not running and self._logic.can_undo()


def _select(combo: Any, data: str) -> None:
    """Select the item with that data without telling anyone; none when there is no such item."""
    blocked = combo.blockSignals(True)
    combo.currentIndex = combo.findData(data)
    combo.blockSignals(blocked)
