"""Hearing of changes inside the nodes that are chosen: an image loaded, a region drawn, a transform put above."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import slicer
import vtk


class NodeWatch:
    """Calls ``on_change`` whenever one of the watched nodes, or a transform above it, changes."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._tags: list[tuple[Any, int]] = []
        self._nodes: list[Any] = []

    def watch(self, nodes: Iterable[Any]) -> None:
        """Watch these nodes (None is passed over) and no others."""
        wanted = [node for node in nodes if node is not None]
        if wanted == self._nodes:
            return
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._nodes = wanted
        events = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
        self._tags = [(node, node.AddObserver(event, self._changed)) for node in wanted for event in events]

    def _changed(self, caller: Any, event: str) -> None:
        self._on_change()
