"""PythonQt's conventions on top of PySide6: the modules ``qt`` and ``ctk`` as the module's code sees them in Slicer.

A Qt object is reached through a ``Proxy`` in which, as in PythonQt, a property hides the getter of its name, nothing
can be added to a C++ object, ctk and qMRML classes show properties, signals, slots and invokables only, a slot gets as
many arguments as it takes, and an error in a slot is swallowed: here it is kept in ``faults``, so that a test can fail.
"""

from __future__ import annotations

import inspect
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

faults: list[str] = []


class Proxy:
    """One Qt object as PythonQt shows it."""

    def __init__(self, target: QtCore.QObject) -> None:
        object.__setattr__(self, "_target", target)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and unwrap(self) is unwrap(other)

    def __hash__(self) -> int:
        return hash(unwrap(self))

    def __getattr__(self, name: str) -> Any:
        target = unwrap(self)
        if name == "name":
            return target.objectName()
        if target.metaObject().indexOfProperty(name) >= 0:
            return wrap(target.property(name))
        if not _shown(target, name):
            raise AttributeError(f"{type(target).__name__} has no attribute '{name}'")
        member = getattr(target, name)
        if isinstance(member, QtCore.SignalInstance):
            return SignalProxy(member)
        return lambda *arguments: wrap(member(*map(unwrap, arguments)))

    def __setattr__(self, name: str, value: Any) -> None:
        meta = unwrap(self).metaObject()
        index = meta.indexOfProperty(name)
        if index < 0 or not meta.property(index).isWritable():
            raise AttributeError(f"{type(unwrap(self)).__name__} has no writable property '{name}'")
        if meta.property(index).typeName() == "QString":
            value = str(value)
        unwrap(self).setProperty(name, unwrap(value))

    def connect(self, signature: str, slot: Callable) -> bool:
        """Old-style connection; an unknown signal is only told, as in PythonQt."""
        signal = _signal(unwrap(self), signature)
        if signal is None:
            faults.append(f"{type(unwrap(self)).__name__} has no signal {signature}")
            return False
        SignalProxy(signal).connect(slot)
        return True

    def disconnect(self, signature: str) -> bool:
        """End all connections of that signal."""
        signal = _signal(unwrap(self), signature)
        if signal is not None:
            signal.disconnect()
        return signal is not None


class SignalProxy:
    """A signal whose slots may take fewer arguments than it has, and whose slots' errors are kept."""

    def __init__(self, signal: Any) -> None:
        self._signal = signal

    def connect(self, slot: Callable) -> bool:
        takes = _arguments(slot)

        def call(*arguments: Any) -> None:
            try:
                slot(*(wrap(argument) for argument in arguments[:takes]))
            except Exception:
                faults.append(traceback.format_exc())

        self._signal.connect(call)
        return True

    def emit(self, *arguments: Any) -> None:
        self._signal.emit(*map(unwrap, arguments))


class QtClass:
    """A class of Qt: makes proxies, and gives its enumerations and static functions."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __call__(self, *arguments: Any) -> Any:
        return wrap(self._kind(*map(unwrap, arguments)))

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._kind, name)
        return (lambda *arguments: wrap(member(*map(unwrap, arguments)))) if callable(member) else member


def wrap(value: Any) -> Any:
    """What Python code in Slicer would get for ``value``."""
    return Proxy(value) if isinstance(value, QtCore.QObject) else value


def unwrap(value: Any) -> Any:
    """The PySide object behind a proxy."""
    return object.__getattribute__(value, "_target") if isinstance(value, Proxy) else value


def install() -> None:
    """Make ``qt`` and ``ctk`` importable."""
    module = types.ModuleType("qt")

    def find(name: str) -> Any:
        for part in (QtWidgets, QtGui, QtCore):
            if hasattr(part, name):
                found = getattr(part, name)
                return QtClass(found) if isinstance(found, type) and name != "Qt" else found
        raise AttributeError(f"qt has no {name}")

    module.__getattr__ = find  # type: ignore[method-assign]
    sys.modules["qt"] = module
    sys.modules["ctk"] = types.ModuleType("ctk")


def _shown(target: QtCore.QObject, name: str) -> bool:
    """Of ctk and qMRML classes only what Qt's meta-object knows, and what comes from QWidget, can be reached."""
    if not type(target).__name__.startswith(("ctk", "qMRML")) or hasattr(QtWidgets.QWidget, name):
        return hasattr(target, name)
    meta = target.metaObject()
    return any(bytes(meta.method(index).name().data()).decode() == name for index in range(meta.methodCount()))


def _signal(target: QtCore.QObject, signature: str) -> Any:
    own = getattr(type(target), "SIGNALS", {})
    if signature in own:
        return getattr(target, own[signature])
    if target.metaObject().indexOfSignal(signature) < 0:
        return None
    return getattr(target, signature.partition("(")[0])


def _arguments(slot: Callable) -> int | None:
    """How many arguments PythonQt gives ``slot``: all that it takes, defaults too; None is any number."""
    parameters = inspect.signature(slot).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)
