"""Installing: torch through the PyTorch extension whatever its arguments, the rest by what this Slicer offers."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from subprocess import CalledProcessError

import pytest
import slicer

from MSKDSegmentationLib import install
from MSKDSegmentationLib.errors import SegmentationError
from MSKDSegmentationLib.install import install_missing, missing, read_requirements, unmet


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed, in place of this environment: package -> version."""
    versions: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in versions:
            raise install.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(install.importlib.metadata, "version", version)
    return versions


@pytest.fixture
def requirements(root: Path) -> Path:
    return root / "MSKDSegmentation" / "Resources" / "requirements.txt"


def pytorch_extension(monkeypatch: pytest.MonkeyPatch, install_torch) -> None:
    """Put a PyTorch extension in place whose logic has that ``installTorch``."""
    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = type("PyTorchUtilsLogic", (), {"installTorch": staticmethod(install_torch)})
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)


def test_nothing_is_touched_when_all_is_there(installed, requirements, monkeypatch) -> None:
    installed.update(torch="2.8.0+cu126", safetensors="0.5", pydantic="2.11.1")
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    install_missing(requirements, True)


def test_torch_comes_through_the_extension_with_two_arguments_only(installed, requirements, monkeypatch) -> None:
    installed.update(safetensors="0.5", pydantic="2.11.1")
    calls = []

    def install_torch(**arguments) -> None:
        calls.append(arguments)
        installed["torch"] = "2.8.0"

    pytorch_extension(monkeypatch, install_torch)
    install_missing(requirements, False)
    assert calls == [{"askConfirmation": False, "torchVersionRequirement": ">=2.4,!=2.9.*"}]


def test_an_extension_with_other_arguments_is_survived(installed, requirements, monkeypatch) -> None:
    installed.update(safetensors="0.5", pydantic="2.11.1")

    def install_torch(backend: str = "auto") -> None:
        installed["torch"] = "2.8.0"

    pytorch_extension(monkeypatch, install_torch)
    install_missing(requirements, True)


def test_without_the_extension_the_remedy_is_told(installed, requirements, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(SegmentationError, match="install 'PyTorch' in the Extensions"):
        install_missing(requirements, True)


def test_a_declined_installation_is_an_error(installed, requirements, monkeypatch) -> None:
    pytorch_extension(monkeypatch, lambda **arguments: None)
    with pytest.raises(SegmentationError, match="was not installed"):
        install_missing(requirements, True)


@pytest.mark.parametrize("interactive", [True, False])
def test_other_packages_are_ensured_where_slicer_can(installed, requirements, monkeypatch, interactive: bool) -> None:
    installed["torch"] = "2.8.0"
    calls = []

    def pip_ensure(wanted, **options) -> None:
        calls.append((wanted, options))
        installed.update(safetensors="0.5", pydantic="2.11.1")

    packaging = types.ModuleType("slicer.packaging")
    packaging.pip_ensure, packaging.load_requirements = pip_ensure, lambda path: ["loaded", Path(path).name]
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    install_missing(requirements, interactive)
    options = {"prompt_install": interactive, "prompt_restart": interactive, "requester": "MSKD Segmentation"}
    assert calls == [(["loaded", "requirements.txt"], options)]


@pytest.mark.parametrize("interactive", [True, False])
def test_an_older_slicer_asks_and_installs_by_pip(installed, requirements, monkeypatch, interactive: bool) -> None:
    installed["torch"] = "2.8.0"
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    questions = []

    def pip_install(wanted) -> None:
        assert wanted == ["safetensors>=0.4.3", "pydantic>=2.7"]
        installed.update(safetensors="0.5", pydantic="2.11.1")

    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **options: questions.append(text) or True)
    install_missing(requirements, interactive)
    asked = "MSKD Segmentation needs safetensors>=0.4.3, pydantic>=2.7. Install it into Slicer's Python?"
    assert questions == ([asked] if interactive else [])


def test_a_failed_installation_names_what_is_missing(installed, requirements, monkeypatch) -> None:
    installed.update(torch="2.8.0", safetensors="0.5")
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "pip_install", lambda wanted: None)
    with pytest.raises(SegmentationError, match=r"pydantic>=2\.7 could not be installed \(it is not there"):
        install_missing(requirements, False)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (CalledProcessError(1, ["/opt/PythonSlicer", "-m", "pip"]), "exit code 1"),
        (RuntimeError("User declined package installation"), "User declined package installation"),
    ],
)
@pytest.mark.parametrize("torch", [True, False])
def test_what_installers_raise_becomes_a_sentence(
    installed, requirements, monkeypatch, failure: Exception, reason: str, torch: bool
) -> None:
    def fail(*arguments, **options) -> None:
        raise failure

    installed.update({"safetensors": "0.5", "pydantic": "2.11.1"} if torch else {"torch": "2.8.0"})
    pytorch_extension(monkeypatch, fail)
    packaging = types.ModuleType("slicer.packaging")
    packaging.pip_ensure, packaging.load_requirements = fail, lambda path: []
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    with pytest.raises(SegmentationError) as error:
        install_missing(requirements, True)
    assert f"could not be installed ({reason}); Slicer's Python console shows why." in str(error.value)


def test_an_installation_that_broke_off_is_missing(installed, requirements) -> None:
    installed.update(torch=None, safetensors="0.5", pydantic="2.11.1")
    assert missing(requirements) == [install.TORCH]


@pytest.mark.parametrize(
    ("version", "met"), [("2.4", True), ("2.13.0+cpu", True), ("2.3.9", False), ("2.9.1", False), ("2.10", True)]
)
def test_versions_are_compared_as_numbers(installed, version: str, met: bool) -> None:
    installed["torch"] = version
    assert (not unmet(["torch>=2.4,!=2.9.*"])) is met


def test_comments_are_no_requirements(requirements: Path) -> None:
    assert read_requirements(requirements) == ["safetensors>=0.4.3", "pydantic>=2.7"]
