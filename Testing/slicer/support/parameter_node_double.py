"""A typed ``parameterNodeWrapper`` for strings and nodes, on a real scripted module node."""

from __future__ import annotations

import weakref
from typing import Any

import slicer


def parameterNodeWrapper(wrapped: type) -> type:  # noqa: N802 (Slicer's name)
    """Give each annotation of ``wrapped`` a property that lives in the wrapped ``vtkMRMLScriptedModuleNode``."""
    members: dict[str, Any] = {}
    for name, kind in wrapped.__annotations__.items():
        if kind is str:
            members[name] = _text_property(name, getattr(wrapped, name, ""))
        elif isinstance(kind, type) and kind.__name__.startswith("vtkMRML"):
            members[name] = _node_property(name, kind)
        else:
            raise TypeError(f"the stand-in cannot keep a {kind}")
    members["__annotations__"] = wrapped.__annotations__
    return type(wrapped.__name__, (_ParameterNode,), members)


class _ParameterNode:
    """Reads and writes one node; the widgets of ``connectGui`` follow it, and it follows them.

    As in Slicer, values are kept until the node says it was modified, and ``connectGui`` returns no tag.
    """

    def __init__(self, node: Any) -> None:
        self.parameterNode = node
        self._connections: dict[int, dict[str, Any]] = {}
        self._updating = False
        self._kept: dict[str, Any] = {}
        for name in type(self).__annotations__:
            if not node.HasParameter(name):
                node.SetParameter(name, getattr(type(self), name).default)
        self._keep()
        this = weakref.ref(self)
        self._observer = node.AddObserver("ModifiedEvent", lambda caller, event: this()._keep())

    def __del__(self) -> None:
        self.parameterNode.RemoveObserver(self._observer)

    def _keep(self) -> None:
        self._kept = {name: getattr(type(self), name).read(self.parameterNode) for name in type(self).__annotations__}

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:  # noqa: N802
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:  # noqa: N802
        self.parameterNode.RemoveObserver(tag)

    def connectGui(self, gui: Any) -> None:  # noqa: N802
        named = {widget.property("SlicerParameterName"): widget for widget in vars(gui).values()}
        self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:  # noqa: N802
        for parameter in mapping:
            assert parameter in type(self).__annotations__, f"no parameter '{parameter}'"
        for parameter, widget in mapping.items():
            widget.setCurrentNode(getattr(self, parameter))
            widget.connect("currentNodeChanged(vtkMRMLNode*)", self._follow(parameter, widget))
        tag = self.parameterNode.AddObserver("ModifiedEvent", self._show)
        self._connections[tag] = mapping
        return tag

    def disconnectGui(self, tag: int) -> None:  # noqa: N802
        if tag in self._connections:
            self.parameterNode.RemoveObserver(tag)
        for widget in self._connections.pop(tag, {}).values():
            widget.disconnect("currentNodeChanged(vtkMRMLNode*)")

    def _show(self, caller: Any, event: Any) -> None:
        if self._updating:
            return
        self._updating = True
        for mapping in self._connections.values():
            for parameter, widget in mapping.items():
                widget.setCurrentNode(getattr(self, parameter))
        self._updating = False

    def _follow(self, parameter: str, widget: Any) -> Any:
        def write() -> None:
            if not self._updating:
                setattr(self, parameter, widget.currentNode())

        return write


class _Property(property):
    """A parameter: ``read`` gets its value from a node, ``write`` sets it; ``default`` is what a new node gets."""

    def __init__(self, name: str, default: str, read: Any, write: Any) -> None:
        def change(wrapper: _ParameterNode, value: Any) -> None:
            node = wrapper.parameterNode
            with slicer.util.NodeModify(node):
                write(node, value)
                wrapper._kept[name] = read(node)

        super().__init__(lambda wrapper: wrapper._kept[name], change)
        self.default, self.read = default, read


def _text_property(name: str, default: str) -> property:
    def write(owner: Any, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{name} takes a str, not {value!r}")
        owner.SetParameter(name, value)

    return _Property(name, default, lambda node: node.GetParameter(name), write)


def _node_property(name: str, kind: type) -> property:
    def write(owner: Any, node: Any) -> None:
        if node is not None and not isinstance(node, kind):
            raise TypeError(f"{name} takes a {kind.__name__}, not {node!r}")
        owner.SetNodeReferenceID(name, node.GetID() if node is not None else None)

    return _Property(name, "", lambda node: node.GetNodeReference(name), write)
