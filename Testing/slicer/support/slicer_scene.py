"""A real MRML scene with its application and module logics, and ``slicer.*`` names that only the application has.

Everything that decides about voxels, grids, segments and the subject hierarchy is Slicer's own C++ code here.
"""

from __future__ import annotations

import tempfile
import types
from typing import Any

import numpy as np
import slicer
import vtk

# Module name -> class of its logic. Order matters: colours before what displays with them.
LOGICS = {
    "Colors": "vtkMRMLColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
}


class SlicerScene:
    """One scene; ``close`` ends it, and nothing of it is left in the ``slicer`` namespace."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        # Without a cache folder ReadFromMRB refuses.
        self._cache = tempfile.TemporaryDirectory(prefix="mskd-cache-")
        self._files, cache = slicer.vtkDataIOManager(), slicer.vtkCacheManager()
        cache.SetRemoteCacheDirectory(self._cache.name)
        self._files.SetCacheManager(cache)
        self.scene.SetDataIOManager(self._files)
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        self.logics: dict[str, Any] = {}
        modules = types.SimpleNamespace()
        for name, class_name in LOGICS.items():
            logic = getattr(slicer, class_name)()
            logic.SetMRMLApplicationLogic(self.application_logic)
            logic.SetMRMLScene(self.scene)
            self.application_logic.SetModuleLogic(name, logic)
            self.logics[name] = logic
            setattr(modules, name.lower(), types.SimpleNamespace(logic=lambda logic=logic: logic))
        self.scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, self._add_to_hierarchy)
        self.scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._remove_from_hierarchy)
        slicer.mrmlScene = self.scene
        slicer.modules = modules
        slicer.app = types.SimpleNamespace(testingEnabled=lambda: False, processEvents=lambda: None)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _add_to_hierarchy(self, caller: Any, event: str, node: Any) -> None:
        # In the application a Qt plugin does this.
        if node.IsA("vtkMRMLDisplayableNode"):
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _remove_from_hierarchy(self, caller: Any, event: str, node: Any) -> None:
        if node.IsA("vtkMRMLDisplayableNode") and not self.scene.IsClosing():
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
            hierarchy.RemoveItem(hierarchy.GetItemByDataNode(node), False, False)

    def close(self) -> None:
        self.scene.Clear(1)
        for logic in self.logics.values():
            logic.SetMRMLScene(None)
            logic.SetMRMLApplicationLogic(None)
        self.application_logic.SetMRMLScene(None)
        self._cache.cleanup()
        del slicer.mrmlScene, slicer.modules, slicer.app

    def volume(self, array: np.ndarray, matrix: np.ndarray | None = None, name: str = "MR") -> Any:
        """A scalar volume node with voxels ``array`` (z, y, x) and the 4x4 matrix from voxels to RAS mm."""
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(node, array)
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.eye(4) if matrix is None else matrix))
        return node

    def transform(self, matrix: np.ndarray, name: str = "T") -> Any:
        """A linear transform node."""
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        return node

    def region(self, minimum: Any, maximum: Any, name: str = "R") -> Any:
        """A markups ROI node around a box in RAS mm."""
        node = self.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
        low, high = np.asarray(minimum, float), np.asarray(maximum, float)
        node.SetCenter(*((low + high) / 2))
        node.SetSize(*(high - low))
        return node

    def segment_array(self, segmentation: Any, name: str, volume: Any) -> np.ndarray:
        """The voxels of the segment called ``name``, resampled by Slicer onto the grid of ``volume``."""
        segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
        assert segment_id, f"no segment '{name}'"
        return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume).copy()


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """A 3x3 rotation about x, then y, then z."""
    transform = vtk.vtkTransform()
    for angle, turn in zip(degrees, (transform.RotateX, transform.RotateY, transform.RotateZ), strict=True):
        turn(angle)
    return slicer.util.arrayFromVTKMatrix(transform.GetMatrix())[:3, :3].copy()


def affine(linear: np.ndarray, translation: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """The 4x4 matrix of a linear part and a translation."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, translation
    return matrix
