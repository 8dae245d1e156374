"""One run, one undo step, kept apart from the Segment Editor's own steps."""

from __future__ import annotations

from typing import Any

import slicer


class UndoStep:
    """Remembers a segmentation before a run, and brings it back as long as nobody has edited it since."""

    def __init__(self) -> None:
        self._logic: Any = None
        self._segmentation: Any = None
        self._result: tuple = ()

    def save(self, segmentation: Any) -> None:
        """Keep the present state of ``segmentation``; a no-op where Slicer has no segment editor logic."""
        self.forget()
        if not hasattr(slicer, "vtkSlicerSegmentEditorLogic"):
            return
        scene = segmentation.GetScene()
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetMRMLScene(scene)
        # Ours alone and never saved: the Segment Editor module keeps its own parameter node.
        editor = scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
        editor.UnRegister(None)
        editor.SetSingletonTag("MSKDSegmentation")
        editor.SetSaveWithScene(False)
        editor = scene.AddNode(editor)
        self._logic.SetSegmentEditorNode(editor)
        self._logic.SetSegmentationNode(segmentation)
        self._logic.SaveStateForUndo()
        self._segmentation = segmentation

    def seal(self) -> None:
        """Tell that the run has written its result."""
        if self._segmentation is not None:
            self._result = _fingerprint(self._segmentation)

    def available(self) -> bool:
        """Whether the last result is still there as it was written."""
        return (
            self._segmentation is not None
            and self._segmentation.GetScene() is not None
            and self._result == _fingerprint(self._segmentation)
        )

    def restore(self) -> bool:
        """Bring the state before the last run back; False when there is none, or it was edited since."""
        if not self.available():
            return False
        self._logic.Undo()
        self.forget()
        return True

    def forget(self) -> None:
        """Drop what is kept (the scene is closing, or another run begins)."""
        if self._logic is not None:
            self._logic.SetSegmentationNode(None)
            self._logic.SetSegmentEditorNode(None)
            self._logic.SetMRMLScene(None)
        self._logic, self._segmentation, self._result = None, None, ()


def _fingerprint(segmentation: Any) -> tuple:
    """Changes with every edit of any segment's voxels, and with every segment added or removed."""
    content = segmentation.GetSegmentation()
    source = content.GetSourceRepresentationName()
    images = [(name, content.GetSegment(name).GetRepresentation(source)) for name in content.GetSegmentIDs()]
    return tuple((name, image.GetMTime() if image is not None else 0) for name, image in images)
