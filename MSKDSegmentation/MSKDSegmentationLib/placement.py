"""Where a result stands in the scene: under the study of the volume it was made from."""

from __future__ import annotations

from typing import Any

import slicer


def new_segmentation(volume: Any) -> Any:
    """A new, empty segmentation node named after ``volume``, placed beside it."""
    scene = volume.GetScene()
    name = scene.GenerateUniqueName(f"{volume.GetName()} segmentation")
    return scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)


def place_beside(volume: Any, made: Any) -> None:
    """Put a node under the study of ``volume``, or beside it; one that the user has placed stays there.

    This is what the DICOM export reads patient and study from.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    if hierarchy is None:
        return
    top = hierarchy.GetSceneItemID()
    source, result = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(made)
    if not source or not result or hierarchy.GetItemParent(result) != top:
        return
    study = hierarchy.GetItemAncestorAtLevel(source, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy())
    hierarchy.SetItemParent(result, study or hierarchy.GetItemParent(source))
