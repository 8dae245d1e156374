"""Installing what the worker needs, inside Apply only: torch through the PyTorch extension, the rest by pip."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError

import slicer

from .errors import SegmentationError

# 2.9 made mixed-precision 3D convolution four times slower.
TORCH = "torch>=2.4,!=2.9.*"
REQUESTER = "MSKD Segmentation"


def install_missing(requirements: Path, interactive: bool) -> None:
    """Install torch and ``requirements`` where they are missing or too old; quick when all is there.

    Args:
        interactive: Questions may be asked (there is a window and a person).

    Raises:
        SegmentationError: something is still missing afterwards.
    """
    if unmet([TORCH]):
        with _explained("PyTorch"):
            _install_torch(interactive)
    wanted = read_requirements(requirements)
    if unmet(wanted):
        with _explained(", ".join(unmet(wanted))):
            _install_packages(requirements, wanted, interactive)


def missing(requirements: Path) -> list[str]:
    """What ``install_missing`` would install."""
    return unmet([TORCH, *read_requirements(requirements)])


def read_requirements(path: Path) -> list[str]:
    """The requirement lines of a requirements file."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def unmet(requirements: list[str]) -> list[str]:
    """Those requirements whose package is absent or breaks a ``>=`` or ``!=X.*`` bound."""
    return [requirement for requirement in requirements if not _met(requirement)]


def _met(requirement: str) -> bool:
    match = re.match(r"([A-Za-z0-9._-]+)(.*)", requirement)
    if match is None:
        return False
    try:
        # None after an installation that broke off.
        installed = _numbers(importlib.metadata.version(match[1]) or "")
    except importlib.metadata.PackageNotFoundError:
        return False
    lowest = re.findall(r">=\s*([\d.]+)", match[2])
    excluded = re.findall(r"!=\s*([\d.]+?)\.\*", match[2])
    return all(installed >= _numbers(bound) for bound in lowest) and not any(
        installed[: len(_numbers(bad))] == _numbers(bad) for bad in excluded
    )


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def _install_torch(interactive: bool) -> None:
    try:
        import PyTorchUtils
    except ImportError as absent:
        raise SegmentationError(
            "PyTorch is needed and the PyTorch extension is not installed; install 'PyTorch' in the Extensions "
            "Manager, restart Slicer, and press Apply again."
        ) from absent
    logic = PyTorchUtils.PyTorchUtilsLogic()
    version = TORCH.removeprefix("torch")
    try:
        logic.installTorch(askConfirmation=interactive, torchVersionRequirement=version)
    except TypeError:
        # The arguments changed between releases of that extension; without any it installs its default.
        logic.installTorch()
    importlib.invalidate_caches()
    if unmet([TORCH]):
        raise SegmentationError(
            f"PyTorch {version} was not installed; press Apply again and accept, or install it with the module "
            "PyTorch Utils."
        )


def _install_packages(path: Path, wanted: list[str], interactive: bool) -> None:
    try:
        from slicer.packaging import load_requirements, pip_ensure
    except ImportError:  # Slicer 5.10
        question = f"{REQUESTER} needs {', '.join(unmet(wanted))}. Install it into Slicer's Python?"
        if interactive and not slicer.util.confirmOkCancelDisplay(question, windowTitle=REQUESTER):
            raise RuntimeError("declined") from None
        slicer.util.pip_install(wanted)
    else:
        pip_ensure(load_requirements(path), prompt_install=interactive, prompt_restart=interactive, requester=REQUESTER)
    importlib.invalidate_caches()
    if unmet(wanted):
        raise RuntimeError("it is not there afterwards")


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever an installer raises (a declined question, pip's exit status) into one sentence."""
    try:
        yield
    except SegmentationError:
        raise
    except Exception as failure:
        logging.exception("%s could not be installed.", what)
        reason = f"exit code {failure.returncode}" if isinstance(failure, CalledProcessError) else str(failure)
        raise SegmentationError(
            f"{what} could not be installed ({reason}); Slicer's Python console shows why. Check the network "
            "connection and the free disk space, and press Apply again."
        ) from failure
