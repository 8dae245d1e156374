"""A typed ``parameterNodeWrapper`` for strings and nodes, on a real scripted module node."""

from __future__ import annotations

from typing import Any


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
    """Reads and writes one node; the widgets of ``connectGui`` follow it, and it follows them."""

    def __init__(self, node: Any) -> None:
        self.parameterNode = node
        self._connections: list[tuple[Any, int]] = []

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:  # noqa: N802
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:  # noqa: N802
        self.parameterNode.RemoveObserver(tag)

    def connectGui(self, gui: Any) -> int:  # noqa: N802
        widgets = {}
        for widget in vars(gui).values():
            parameter = widget.property("SlicerParameterName") if hasattr(widget, "property") else None
            if parameter:
                assert parameter in type(self).__annotations__, f"no parameter '{parameter}'"
                widgets[parameter] = widget
        for parameter, widget in widgets.items():
            widget.connect("currentNodeChanged(vtkMRMLNode*)", self._follow(parameter, widget))

        def show(caller: Any = None, event: Any = None) -> None:
            for parameter, widget in widgets.items():
                if widget.currentNode() != getattr(self, parameter):
                    widget.setCurrentNode(getattr(self, parameter))

        show()
        self._connections.append((widgets, self.parameterNode.AddObserver("ModifiedEvent", show)))
        return len(self._connections) - 1

    def disconnectGui(self, tag: int) -> None:  # noqa: N802
        widgets, observer = self._connections[tag]
        self.parameterNode.RemoveObserver(observer)
        for widget in widgets.values():
            widget.disconnect("currentNodeChanged(vtkMRMLNode*)")

    def _follow(self, parameter: str, widget: Any) -> Any:
        def write(node: Any) -> None:
            if getattr(self, parameter) != node:
                setattr(self, parameter, node)

        return write


def _text_property(name: str, default: str) -> property:
    def read(self: _ParameterNode) -> str:
        value = self.parameterNode.GetParameter(name)
        return value or default

    def write(self: _ParameterNode, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{name} takes a str, not {value!r}")
        self.parameterNode.SetParameter(name, value)

    return property(read, write)


def _node_property(name: str, kind: type) -> property:
    def read(self: _ParameterNode) -> Any:
        return self.parameterNode.GetNodeReference(name)

    def write(self: _ParameterNode, node: Any) -> None:
        if node is not None and not isinstance(node, kind):
            raise TypeError(f"{name} takes a {kind.__name__}, not {node!r}")
        self.parameterNode.SetNodeReferenceID(name, node.GetID() if node is not None else None)

    return property(read, write)
