"""Stand-ins for the ctk and qMRML widgets of the panel, on the real scene, and a loader for the module's .ui file."""
# ruff: noqa: N801, N802, N815 (names of Slicer and Qt)

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import Property, Signal, Slot
from pythonqt_double import faults, wrap

HEADER = 26


class qMRMLWidget(QtWidgets.QWidget):
    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    mrmlSceneChanged = Signal(object)

    @Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        self.mrmlSceneChanged.emit(scene)


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A title bar above its contents; collapsed, the contents are hidden."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(0, HEADER, 0, 0)

    @Property(str)
    def text(self) -> str:
        return self._text

    @text.setter
    def text(self, text: str) -> None:
        self._text = text
        self.update()

    @Property(bool)
    def collapsed(self) -> bool:
        return self._collapsed

    @collapsed.setter
    def collapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self._apply()
        self.contentsCollapsed.emit(collapsed)

    def event(self, event: QtCore.QEvent) -> bool:
        if event.type() == QtCore.QEvent.Type.Polish:
            self._apply()
        return super().event(event)

    def _apply(self) -> None:
        self.setMaximumHeight(HEADER if self._collapsed else 16777215)
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
            if self._collapsed or child.property("hidden by section"):
                child.setVisible(not self._collapsed)
                child.setProperty("hidden by section", self._collapsed)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        bar = QtCore.QRect(0, 0, self.width(), HEADER - 4)
        painter.fillRect(bar, self.palette().color(QtGui.QPalette.ColorRole.Midlight))
        painter.drawText(bar.adjusted(24, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, self._text)
        tip = [(8, 7), (16, 7), (12, 14)] if not self._collapsed else [(9, 6), (9, 15), (15, 10)]
        painter.setBrush(self.palette().color(QtGui.QPalette.ColorRole.WindowText))
        painter.drawPolygon([QtCore.QPoint(*point) for point in tip])
        painter.end()


def _plain_property(name: str, kind: type | str, default: Any) -> Any:
    def read(self: Any) -> Any:
        return self._options.get(name, default)

    def write(self: Any, value: Any) -> None:
        self._options[name] = value
        self.fill()

    return Property(kind, read, write)


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lists the nodes of a scene; removing the chosen one chooses none, or a neighbour where none is not allowed."""

    SIGNALS = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    }
    currentNodeChanged = Signal(object)
    nodeAddedByUser = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._options: dict[str, Any] = {}
        self._scene: Any = None
        self._tags: list[int] = []
        self._node: Any = None
        self._filling = False
        self._combo = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._combo.currentIndexChanged.connect(self._chosen)

    nodeTypes = _plain_property("nodeTypes", "QStringList", [])
    noneEnabled = _plain_property("noneEnabled", bool, False)
    noneDisplay = _plain_property("noneDisplay", str, "None")
    showChildNodeTypes = _plain_property("showChildNodeTypes", bool, True)
    addEnabled = _plain_property("addEnabled", bool, True)
    removeEnabled = _plain_property("removeEnabled", bool, True)
    renameEnabled = _plain_property("renameEnabled", bool, False)

    @Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.EndCloseEvent)
        self._tags = [scene.AddObserver(event, lambda caller, event: self.fill()) for event in events] if scene else []
        if scene:
            self._tags.append(scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, self._removed))
        self.fill()

    @Slot(result=object)
    def currentNode(self) -> Any:
        return self._node

    @Slot(object)
    def setCurrentNode(self, node: Any) -> None:
        if node is not None and node not in self._nodes():
            node = None
        if node != self._node:
            self._node = node
            self.fill()
            self.currentNodeChanged.emit(node)

    @Slot(result=object)
    def addNode(self) -> Any:
        node = self._scene.AddNewNodeByClass(self.nodeTypes[0])
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def fill(self) -> None:
        """Bring the list in line with the scene."""
        nodes = self._nodes()
        self._filling = True
        self._combo.clear()
        if self.noneEnabled:
            self._combo.addItem(self.noneDisplay)
        for node in nodes:
            self._combo.addItem(node.GetName())
        self._combo.setCurrentIndex(nodes.index(self._node) + bool(self.noneEnabled) if self._node in nodes else 0)
        self._filling = False
        if self._node is None and nodes and not self.noneEnabled:
            self.setCurrentNode(nodes[0])

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        every = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        return [node for node in every if not node.GetHideFromEditors() and self._listed(node)]

    def _listed(self, node: Any) -> bool:
        if self.showChildNodeTypes:
            return any(node.IsA(kind) for kind in self.nodeTypes)
        return node.GetClassName() in self.nodeTypes

    def _chosen(self, index: int) -> None:
        if not self._filling:
            index -= bool(self.noneEnabled)
            self.setCurrentNode(self._nodes()[index] if index >= 0 else None)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _removed(self, caller: Any, event: str, node: Any) -> None:
        if node is self._node:
            rest = self._nodes()
            self._node = None if self.noneEnabled or not rest else rest[0]
            self.fill()
            self.currentNodeChanged.emit(self._node)
        else:
            self.fill()


class _Loader(QtUiTools.QUiLoader):
    def createWidget(self, name: str, parent: Any = None, objectName: str = "") -> Any:
        own = {kind.__name__: kind for kind in (qMRMLWidget, ctkCollapsibleButton, qMRMLNodeComboBox)}
        if name not in own:
            return super().createWidget(name, parent, objectName)
        widget = own[name](parent)
        widget.setObjectName(objectName)
        return widget


def load_ui(path: str) -> Any:
    """``slicer.util.loadUI``: the stand-ins do not have Slicer's C++ signatures, so the connections are made here."""
    tree = ET.ElementTree(ET.fromstring(Path(path).read_text(encoding="utf-8")))
    root = tree.getroot()
    connections = root.find("connections")
    if connections is not None:
        root.remove(connections)
    buffer = QtCore.QBuffer()
    buffer.setData(ET.tostring(root, encoding="utf-8"))
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    widget = _Loader().load(buffer)
    named = {child.objectName(): child for child in [widget, *widget.findChildren(QtWidgets.QWidget)]}
    for element in root.iter("widget"):
        meta = named[element.get("name")].metaObject()
        # Qt makes a dynamic property of a misspelt one and says nothing.
        stored = [entry.get("name") for entry in element.findall("property") if entry.get("stdset") != "0"]
        unknown = [name for name in stored if meta.indexOfProperty(name) < 0]
        faults.extend(f"{element.get('class')} has no property {name}" for name in unknown)
    for connection in connections if connections is not None else []:
        sender, signal, receiver, slot = (connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot"))
        getattr(named[sender], type(named[sender]).SIGNALS[signal]).connect(
            getattr(named[receiver], slot.partition("(")[0])
        )
    return wrap(widget)


def child_widget_variables(widget: Any) -> Any:
    """``slicer.util.childWidgetVariables``: the named children as attributes."""
    ui = type("", (), {})()
    for child in widget.findChildren(QtWidgets.QWidget):
        if child.objectName() and not child.objectName().startswith("qt_"):
            setattr(ui, child.objectName(), wrap(child))
    return ui
