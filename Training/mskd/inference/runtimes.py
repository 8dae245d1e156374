"""Other people's runtimes, imported so that they send nothing and leave nothing in the user's home.

Some releases of both write an identifier there, and report their use over the network, as soon as they are imported.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_HIDING = threading.Lock()


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``, its telemetry off."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    runtime = importlib.import_module("onnxruntime")
    runtime.disable_telemetry_events()
    return runtime


def import_openvino(module: str = "openvino") -> Any:
    """A module of OpenVINO, without the package that reports on it."""
    with _hidden("openvino_telemetry"):
        return importlib.import_module(module)


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of a package fail, as if it were not installed; one thread at a time."""
    with _HIDING:
        before = sys.modules.get(package)
        sys.modules[package] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[package]
            if before is not None:
                sys.modules[package] = before
