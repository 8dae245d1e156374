"""The MSKD Segmentation module of 3D Slicer: wiring only, what it does is in MSKDSegmentationLib."""

import sys
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from MSKDSegmentationLib.logic import SegmentationLogic

DOCUMENTATION = "https://github.com/mskd-segmentation/MSKD/blob/main/docs/slicer.md"


class MSKDSegmentation(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MSKD Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Markups"]
        self.parent.contributors = ["MSKD contributors"]
        self.parent.helpText = _(
            "Segments a volume in seconds with a light network distilled from a heavy one. Choose a volume and a "
            "model, draw a region where the model asks for one, and press Apply. For research use only."
        )
        self.parent.helpText += f' <a href="{DOCUMENTATION}">{_("Documentation")}</a>'
        self.parent.acknowledgementText = _(
            "Structured knowledge distillation after Zhao et al., Computers in Biology and Medicine 164:107284, 2023."
        )


class MSKDSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Ties the panel to the scene's life; the panel itself is MSKDSegmentationLib.panel."""

    def __init__(self, parent=None):
        # First, since without a parent the base class calls setup() itself.
        self.logic = self.panel = self._parameters = self._gui_tag = None
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        from MSKDSegmentationLib.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/MSKDSegmentation.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = MSKDSegmentationLogic()
        self.panel = Panel(self.ui, self.logic)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._on_scene_start_close)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._on_scene_ready)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._on_scene_ready)
        self._show_parameters()

    def cleanup(self):
        if self.panel is not None:
            self._hide_parameters()
            self.panel.close()
        self.removeObservers()

    def enter(self):
        if self.panel is not None:
            self.panel.choose_volume()

    def onReload(self):  # noqa: N802 (Slicer's name)
        for name in [name for name in sys.modules if name.partition(".")[0] == "MSKDSegmentationLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def _show_parameters(self):
        from MSKDSegmentationLib.parameters import MSKDSegmentationParameterNode, connect

        self._parameters = MSKDSegmentationParameterNode(self.logic.getParameterNode())
        self._gui_tag = connect(self._parameters, self.ui)
        self.addObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        self.panel.show(self._parameters)

    def _hide_parameters(self):
        if self._parameters is not None:
            self._parameters.disconnectGui(self._gui_tag)
            self.removeObservers(self._on_parameters)
        self._parameters = self._gui_tag = None
        self.panel.show(None)

    def _on_parameters(self, caller=None, event=None):
        self.panel.refresh()

    def _on_scene_start_close(self, caller=None, event=None):
        self.panel.scene_closes()
        self._hide_parameters()

    def _on_scene_ready(self, caller=None, event=None):
        # Parameters read while nodes were still coming in would stay without them.
        self._hide_parameters()
        self._show_parameters()


# Slicer's class last: it calls the next class's __init__ without arguments.
class MSKDSegmentationLogic(SegmentationLogic, ScriptedLoadableModuleLogic):
    """``process(volumeNode, model, segmentationNode, device=..., region=...)`` segments without the panel."""

    def __init__(self, **doubles):
        ScriptedLoadableModuleLogic.__init__(self)
        SegmentationLogic.__init__(self, Path(__file__).resolve().parent, **doubles)


# ruff: noqa: PT009 (Slicer runs these by unittest)
class MSKDSegmentationTest(ScriptedLoadableModuleTest):
    """Self-test on a synthetic volume with the first bundled model; run it from Reload and Test."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):  # noqa: N802 (Slicer's name)
        self.setUp()
        self.test_segments_are_written_on_the_grid_of_the_volume()

    def test_segments_are_written_on_the_grid_of_the_volume(self):
        z, y, x = np.mgrid[:40, :48, :32]
        ball = ((z - 20) ** 2 + (y - 24) ** 2 + (x - 16) ** 2 < 100).astype(np.float32)
        volume = slicer.util.addVolumeFromArray(ball * 100 + z, name="Synthetic")
        logic = MSKDSegmentationLogic()
        if logic.missing():
            self.delayDisplay(f"Test skipped, not installed: {', '.join(logic.missing())}")
            return
        try:
            models = logic.models()
            self.assertTrue(models, "no model comes with the extension")
            segmentation = logic.process(volume, models[0].name, device="cpu")
            names = [segmentation.GetSegmentation().GetNthSegment(i).GetName() for i in range(len(models[0].labels))]
            self.assertEqual(names, list(models[0].labels))
            segmentation = logic.process(volume, models[0].name, segmentation, device="cpu")
            self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), len(names))
        finally:
            logic.stop()
        self.delayDisplay("Test passed")
