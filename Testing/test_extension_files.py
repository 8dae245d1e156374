"""The extension as Slicer's build and catalogue see it: CMake, s4ext, JSON, pyproject and the files on disk agree."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

URL = "https://github.com/mskd-segmentation/MSKD"
RAW = "https://raw.githubusercontent.com/mskd-segmentation/MSKD/main/"

# What a Slicer build tree provides: each call is written down, and a file that is not there is fatal, as in Slicer.
STAND_IN = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/use.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/end.cmake")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR modules)
"""
STAND_IN_USE = """
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  set(subdir "")
  if(MY_WITH_SUBDIR)
    get_filename_component(subdir ${CMAKE_CURRENT_SOURCE_DIR} NAME)
    set(subdir "${subdir}/")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "given nonexistent file '${file}'")
    endif()
    file(APPEND ${CMAKE_BINARY_DIR}/installed.txt "${subdir}${file}\\n")
  endforeach()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT" "" ${ARGN})
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT})
    message(FATAL_ERROR "the test '${MY_SCRIPT}' is looked for in ${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  file(APPEND ${CMAKE_BINARY_DIR}/tests.txt "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}\\n")
endmacro()
"""
STAND_IN_END = """
foreach(name HOMEPAGE LICENSE_FILE README_FILE)
  file(APPEND ${CMAKE_BINARY_DIR}/settings.txt "${name}=${EXTENSION_${name}}\\n")
endforeach()
"""


def read_cmake(root: Path) -> dict[str, str]:
    """The EXTENSION_ settings of the top CMakeLists.txt, by their lower-case name."""
    text = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    return {name.lower(): value for name, value in re.findall(r'set\(EXTENSION_(\w+) "(.*)"\)', text)}


def read_s4ext(root: Path) -> dict[str, str]:
    """Key -> value of MSKD.s4ext."""
    lines = (root / "MSKD.s4ext").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    assert len({key for key, _, _ in pairs}) == len(pairs), "a key is there twice"
    return {key: value for key, _, value in pairs}


def read_catalogue(root: Path) -> dict:
    """MSKD.json."""
    return json.loads((root / "MSKD.json").read_text(encoding="utf-8"))


def test_the_project_has_the_extensions_name(root: Path) -> None:
    assert re.search(r"^project\(MSKD\)$", (root / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE)


def test_s4ext_has_each_key_that_slicer_knows_and_no_other(root: Path) -> None:
    keys = "scm scmurl scmrevision depends recommends build_subdirectory homepage contributors category iconurl status "
    assert set(read_s4ext(root)) == set((keys + "tier description screenshoturls enabled").split())


def test_cmake_and_s4ext_agree(root: Path) -> None:
    cmake, s4ext = read_cmake(root), read_s4ext(root)
    shared = ["homepage", "category", "contributors", "description", "iconurl", "screenshoturls", "depends"]
    assert {key: cmake[key] for key in shared} == {key: s4ext[key] for key in shared}
    assert cmake["build_subdirectory"] == s4ext["build_subdirectory"]


def test_s4ext_and_catalogue_agree(root: Path) -> None:
    s4ext, catalogue = read_s4ext(root), read_catalogue(root)
    assert catalogue["scm_url"] == s4ext["scmurl"]
    assert catalogue["scm_revision"] == s4ext["scmrevision"]
    assert catalogue["category"] == s4ext["category"]
    assert catalogue["build_dependencies"] == s4ext["depends"].split()
    assert catalogue["build_subdirectory"] == s4ext["build_subdirectory"]
    assert str(catalogue["tier"]) == s4ext["tier"]


def test_the_catalogue_entry_is_of_schema_1_0_2(root: Path) -> None:
    catalogue = read_catalogue(root)
    assert catalogue["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    known = "$schema category scm_url scm_revision scm_type build_dependencies dicom_support_rule build_subdirectory"
    assert set(catalogue) <= set(known.split()) | {"enabled", "tier"}
    assert 1 <= catalogue["tier"] <= 5


def test_there_is_one_home_on_the_web(root: Path) -> None:
    cmake, s4ext = read_cmake(root), read_s4ext(root)
    assert cmake["homepage"] == URL
    assert s4ext["scmurl"] == f"{URL}.git"
    assert f'"{URL}"' in (root / "CITATION.cff").read_text(encoding="utf-8")
    assert URL in (root / "MSKDSegmentation" / "MSKDSegmentation.py").read_text(encoding="utf-8")


def test_linked_pictures_are_in_the_repository(root: Path) -> None:
    cmake = read_cmake(root)
    for url in [cmake["iconurl"], *cmake["screenshoturls"].split()]:
        assert url.startswith(RAW)
        assert (root / url.removeprefix(RAW)).is_file(), url


@pytest.mark.parametrize("path", ["MSKD.png", "MSKDSegmentation/Resources/Icons/MSKDSegmentation.png"])
def test_icons_are_128_pixels_square(root: Path, path: str) -> None:
    header = (root / path).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:24]) == (128, 128)


def test_pyproject_names_the_same_licence_dependencies_and_version(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "(.+)"', (root / "Training/mskd/__init__.py").read_text(encoding="utf-8"))
    assert version is not None
    assert f"\nversion: {version[1]}\n" in citation
    assert project["license"] == "Apache-2.0"
    assert f"\nlicense: {project['license']}\n" in citation
    assert project["license-files"] == ["LICENSE.txt"]
    assert "Apache License" in (root / "LICENSE.txt").read_text(encoding="utf-8")
    assert "END OF TERMS AND CONDITIONS" in (root / "LICENSE.txt").read_text(encoding="utf-8")


def test_the_module_installs_what_the_package_needs(root: Path) -> None:
    """requirements.txt is pyproject's list without what Slicer brings, torch, and what only the command line needs."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [entry for entry in project["dependencies"] if entry.startswith(("safetensors", "pydantic"))]
    lines = (root / "MSKDSegmentation/Resources/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == needed
    torch = next(entry for entry in project["dependencies"] if entry.startswith("torch"))
    assert f'TORCH = "{torch}"' in (root / "MSKDSegmentation/MSKDSegmentationLib/install.py").read_text(
        encoding="utf-8"
    )


def test_every_folder_of_the_build_has_its_cmake_file(root: Path) -> None:
    for folder in ("", "MSKDSegmentation", "Training", "Training/mskd"):
        text = (root / folder / "CMakeLists.txt").read_text(encoding="utf-8")
        assert "../" not in text, folder
        for sub in re.findall(r"add_subdirectory\((\S+)\)", text):
            assert (root / folder / sub / "CMakeLists.txt").is_file(), sub


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_the_build_installs_every_file(root: Path, tmp_path: Path) -> None:
    """Configured against a stand-in of Slicer, the build lists each file once, where the module looks for it."""
    slicer = tmp_path / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(STAND_IN)
    (slicer / "use.cmake").write_text(STAND_IN_USE)
    (slicer / "end.cmake").write_text(STAND_IN_END)
    # project() enables C and C++, as in every extension; this build needs no compiler.
    compilers = [f"-DCMAKE_{language}_COMPILER_FORCED=ON" for language in ("C", "CXX")]
    compilers += [f"-DCMAKE_{language}_COMPILER={sys.executable}" for language in ("C", "CXX")]
    command = ["cmake", "-S", str(root), "-B", str(tmp_path / "b"), f"-DSlicer_DIR={slicer}", "-DBUILD_TESTING=ON"]
    done = subprocess.run([*command, *compilers], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    installed = (tmp_path / "b" / "installed.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(installed)) == len(installed)
    assert set(installed) == {*module_files(root), *package_files(root)}
    assert (tmp_path / "b" / "tests.txt").read_text(
        encoding="utf-8"
    ) == f"{root}/MSKDSegmentation/MSKDSegmentation.py\n"
    subprocess.run(["cmake", "--install", str(tmp_path / "b"), "--prefix", str(tmp_path / "p")], check=True)
    recipes = {path.name for path in (root / "Training/recipes").glob("*.toml")}
    assert {path.name for path in (tmp_path / "p/modules/mskd/recipes").iterdir()} == recipes
    settings = dict(
        line.split("=") for line in (tmp_path / "b" / "settings.txt").read_text(encoding="utf-8").splitlines()
    )
    assert Path(settings["LICENSE_FILE"]).is_file()
    assert Path(settings["README_FILE"]).is_file()


def _left_out(path: Path) -> bool:
    """Build descriptions, and what tools leave behind."""
    cache = any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    return cache or path.name == "CMakeLists.txt"


def module_files(root: Path) -> set[str]:
    """Every file of the module, as it must lie in the folder of scripted modules."""
    folder = root / "MSKDSegmentation"
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in files if not _left_out(path)}


def package_files(root: Path) -> set[str]:
    """Every file of the package, as it must lie below the folder of scripted modules."""
    folder = root / "Training"
    files = {path.relative_to(folder) for path in (folder / "mskd").rglob("*") if path.is_file()}
    return {path.as_posix() for path in files if not _left_out(path)}


def test_nothing_but_the_package_shares_its_folder_name(root: Path) -> None:
    """All extensions share one folder of modules: ours has the module, its Lib and the package, by our names."""
    names = {path.partition("/")[0] for path in module_files(root) | package_files(root)}
    assert names - {"Resources"} == {"MSKDSegmentation.py", "MSKDSegmentationLib", "mskd"}
