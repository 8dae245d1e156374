"""Stand-ins for the Python modules that only the application brings, put where ``import`` finds them.

They follow the behaviour of Slicer's own; they are imitations all the same: a run on the desktop stays a manual step.
"""
# ruff: noqa: N802 (Slicer's names)

from __future__ import annotations

import sys
import types
import unittest
from pathlib import Path
from typing import Any

import slicer
from parameter_node_double import parameterNodeWrapper


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return (
            f'<p>See the <a href="https://slicer.readthedocs.io/en/5.10/{docPage or ""}">online documentation</a>.</p>'
        )


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent or new_parent()
        self.layout = self.parent.layout()
        if not parent:
            self.setup()

    def resourcePath(self, filename: str) -> str:
        return str(Path(sys.modules[type(self).__module__].__file__).parent / "Resources" / filename)

    def setup(self) -> None:
        """The developer section, in the application."""

    def onReload(self) -> None:
        """Executes the module file again and makes a new widget, in the application."""

    def cleanup(self) -> None:
        """For subclasses."""


def new_parent() -> Any:
    """A widget with a layout, as the base class makes it where it gets none."""
    import qt

    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    return parent


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node:
            node.SetAttribute("ModuleName", self.moduleName)
            return node
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Shows a message, in the application."""

    def runTest(self) -> None:
        """For subclasses."""


def install() -> None:
    """Make ``slicer.i18n``, ``slicer.ScriptedLoadableModule`` and ``slicer.parameterNodeWrapper`` importable."""
    classes = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    _module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    _module("slicer.ScriptedLoadableModule", **{one.__name__: one for one in classes})
    _module("slicer.parameterNodeWrapper", parameterNodeWrapper=parameterNodeWrapper)


def _module(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    setattr(slicer, name.rpartition(".")[2], module)
