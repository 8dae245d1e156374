"""The module's widget on PySide6 and the real scene, made as the application does, every dialog and fault kept."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import pythonqt_double
import slicer
from PySide6 import QtCore, QtWidgets
from pythonqt_double import unwrap, wrap
from widget_doubles import child_widget_variables, load_ui

WIDTH = 420


class PanelHarness:
    """One open module panel.

    Attributes:
        dialogs: The texts of the error dialogs so far.
        notes: What Qt itself complained of (an unknown property in the .ui file, a destroyed process).
    """

    def __init__(self) -> None:
        self.application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["panel"])
        self.application.setStyle("Fusion")
        pythonqt_double.install()
        pythonqt_double.faults.clear()
        self.dialogs: list[str] = []
        self.notes: list[str] = []
        QtCore.qInstallMessageHandler(self._note)
        # VTK prints the errors of observers and goes on; it does so through this hook.
        self._hook, sys.excepthook = sys.excepthook, self._fault
        slicer.util.loadUI, slicer.util.childWidgetVariables = load_ui, child_widget_variables
        slicer.util.errorDisplay = lambda text, **options: self.dialogs.append(text)
        slicer.app.processEvents = self.application.processEvents
        self.parent = QtWidgets.QWidget()
        QtWidgets.QVBoxLayout(self.parent)
        self.open()

    @property
    def faults(self) -> list[str]:
        """Errors in slots and connections that do not exist."""
        return pythonqt_double.faults

    def open(self) -> None:
        """Make the widget, as opening or reloading the module does."""
        from MSKDSegmentation import MSKDSegmentationWidget

        self.widget = MSKDSegmentationWidget(wrap(self.parent))
        self.widget.setup()
        self.widget.enter()
        self.ui = self.widget.ui
        self.spin()

    def reload(self) -> None:
        """Close the widget and make a new one on the same scene."""
        self._remove()
        self.open()

    def close(self) -> None:
        self._remove()
        self.parent.deleteLater()
        self.spin()
        QtCore.qInstallMessageHandler(None)
        sys.excepthook = self._hook

    def _remove(self) -> None:
        self.widget.cleanup()
        while self.parent.layout().count():
            content = self.parent.layout().takeAt(0).widget()
            # Slicer's widgets stop to observe the scene when they are destroyed; Python objects cannot.
            content.setMRMLScene(None)
            content.deleteLater()

    def _note(self, kind: Any, context: Any, text: str) -> None:
        if text != "This plugin does not support propagateSizeHints()":
            self.notes.append(text)

    def _fault(self, kind: Any, error: Any, trace: Any) -> None:
        self.faults.append("".join(traceback.format_exception(kind, error, trace)))

    @property
    def parameters(self) -> Any:
        """The typed parameter node."""
        return self.widget._parameters

    def spin(self, until: Callable[[], bool] = lambda: True, seconds: float = 30.0) -> None:
        """Let Qt work until something is true."""
        end = time.monotonic() + seconds
        while True:
            self.application.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 20)
            self.application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
            if until():
                return
            assert time.monotonic() < end, (self.ui.statusLabel.text, self.faults, self.notes)
            time.sleep(0.005)

    def choose_model(self, name: str) -> None:
        """As a person does, in the list."""
        self.ui.modelSelector.currentIndex = self.ui.modelSelector.findData(name)

    def ready(self, volume: object, model: str = "toy") -> None:
        """Choose a volume and a model, so that Apply opens."""
        self.parameters.inputVolume = volume
        self.choose_model(model)
        assert self.ui.applyButton.enabled, self.ui.applyButton.toolTip

    def apply(self) -> None:
        self.ui.applyButton.click()

    def run(self) -> None:
        """Press Apply and wait for the end."""
        self.apply()
        self.wait()

    def wait(self) -> None:
        self.spin(lambda: self.ui.applyButton.text == "Apply")

    def screenshot(self, path: str) -> None:
        """The panel at a fixed width."""
        self.parent.setFixedWidth(WIDTH)
        self.parent.setAttribute(QtCore.Qt.WidgetAttribute.WA_DontShowOnScreen)
        self.parent.show()
        self.spin()
        self.parent.adjustSize()
        self.spin()
        height = self.parent.heightForWidth(WIDTH) if self.parent.hasHeightForWidth() else self.parent.height()
        self.parent.resize(WIDTH, height)
        self.spin()
        unwrap(wrap(self.parent)).grab().save(path)
