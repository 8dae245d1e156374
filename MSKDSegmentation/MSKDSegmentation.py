"""The MSKD Segmentation module of 3D Slicer: wiring only, what it does is in MSKDSegmentationLib."""

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

from MSKDSegmentationLib.install import TORCH, unmet
from MSKDSegmentationLib.logic import SegmentationLogic


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
        ) + self.getDefaultModuleDocumentationLink("https://github.com/mskd-segmentation/MSKD")
        self.parent.acknowledgementText = _(
            "Structured knowledge distillation after Zhao et al., Computers in Biology and Medicine 164:107284, 2023."
        )


class MSKDSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Ties the panel to the scene's life; the panel itself is MSKDSegmentationLib.panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameters = None
        self._gui_tag = None

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
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._on_scene_end_close)
        self._show_parameters()

    def cleanup(self):
        if self.panel is not None:
            self._hide_parameters()
            self.panel.close()
        self.removeObservers()

    def enter(self):
        self._show_parameters()

    def exit(self):
        if not self.panel.running:
            self._hide_parameters()

    def _show_parameters(self):
        from MSKDSegmentationLib.parameters import MSKDSegmentationParameterNode

        if self._parameters is not None:
            return
        self._parameters = MSKDSegmentationParameterNode(self.logic.getParameterNode())
        self._gui_tag = self._parameters.connectGui(self.ui)
        self.addObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        if not self._parameters.inputVolume:
            # By exact class: label maps are scalar volumes too, and nothing to segment.
            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            images = [node for node in volumes if node.GetClassName() == "vtkMRMLScalarVolumeNode"]
            self._parameters.inputVolume = images[0] if images else None
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

    def _on_scene_end_close(self, caller=None, event=None):
        self._show_parameters()


class MSKDSegmentationLogic(ScriptedLoadableModuleLogic, SegmentationLogic):
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
        if unmet([TORCH]):
            self.delayDisplay("Test skipped: PyTorch is not installed")
            return
        z, y, x = np.mgrid[:40, :48, :32]
        ball = ((z - 20) ** 2 + (y - 24) ** 2 + (x - 16) ** 2 < 100).astype(np.float32)
        volume = slicer.util.addVolumeFromArray(ball * 100 + z, name="Synthetic")
        logic = MSKDSegmentationLogic()
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
