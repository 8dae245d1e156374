"""Writing a model package: as a whole or not at all."""

from __future__ import annotations

import copy
import secrets
import shutil
import zipfile
from pathlib import Path

from mskd.errors import InputError, SettingsError
from mskd.files import replacing
from mskd.networks import SegmentationNetwork
from mskd.package.card import render_card
from mskd.package.manifest import CARD, MANIFEST, PROBE, WEIGHTS, digest, manifest_text
from mskd.package.package import Package, open_package
from mskd.package.probe import make_probe
from mskd.package.weights import check_network, distinct_tensors, pack_tensors
from mskd.spec import Manifest

ARCHIVE_SUFFIX = ".mskd.zip"
FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def save_package(
    folder: str | Path, manifest: Manifest, network: SegmentationNetwork, *, overwrite: bool = False
) -> Package:
    """Write weights, probe, card and manifest into a new folder, and open it again.

    Args:
        folder: Where to; its parent must exist.
        manifest: Everything but ``files``, which is filled in here.
        network: Its weights are taken as they are; its mode (train or eval) is left as it was.
        overwrite: Replace a package that is there.

    Raises:
        SettingsError: the folder exists (without ``overwrite``), or holds something other than a package.
        PackageError: manifest and network contradict each other. InputError: the disk is full or not writable.
    """
    target = Path(folder)
    _may_write(target, overwrite)
    check_network(manifest, source=str(target))
    files = {
        WEIGHTS: pack_tensors(dict(distinct_tensors(network))),
        PROBE: pack_tensors(make_probe(manifest, copy.deepcopy(network).cpu().eval())),
        CARD: render_card(manifest).encode(),
    }
    return _write(target, manifest, files)


def amend_package(package: Package, manifest: Manifest) -> Package:
    """Say something else of the same weights: rewrite the manifest and the card of a package folder.

    Raises:
        SettingsError: it is a zip file. PackageError: the manifest does not fit the weights.
        InputError: the disk is full or not writable.
    """
    if not package.path.is_dir():
        raise SettingsError(f"{package.path} is a packed model; unpack it first.")
    check_network(manifest, source=str(package.path))
    files = {name: package.files[name] for name in package.manifest.files}
    return _write(package.path, manifest, {**files, CARD: render_card(manifest).encode()})


def _write(target: Path, manifest: Manifest, files: dict[str, bytes]) -> Package:
    """All files and the manifest that lists them: as a whole or not at all."""
    complete = manifest.model_copy(update={"files": {name: digest(data) for name, data in files.items()}})
    files[MANIFEST] = manifest_text(complete)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        open_package(temporary)
        _replace(temporary, target)
    except OSError as fault:
        raise InputError(
            f"{target} cannot be written ({fault.strerror or fault}); nothing was left there, so make room or choose "
            "another place."
        ) from fault
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_package(target)


def zip_package(folder: str | Path, target: str | Path, *, overwrite: bool = False) -> Path:
    """Write the package in ``folder`` as a ``.mskd.zip``, the same bytes for the same package.

    Raises:
        SettingsError: wrong suffix or an existing file. PackageError: ``folder`` is not a sound package.
    """
    path = Path(target)
    if not path.name.endswith(ARCHIVE_SUFFIX):
        raise SettingsError(f"{path}: the name of a packed model ends in {ARCHIVE_SUFFIX}.")
    if path.exists() and not overwrite:
        raise SettingsError(f"{path} exists already; choose another name or allow it to be replaced.")
    package = open_package(folder)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in package.files.items():
            archive.writestr(zipfile.ZipInfo(name, FIXED_DATE), data, zipfile.ZIP_DEFLATED)
    return path


def _may_write(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise SettingsError(f"{target} exists already; choose another name or allow it to be replaced (--overwrite).")
    if not target.is_dir() or (any(target.iterdir()) and not (target / MANIFEST).is_file()):
        raise SettingsError(f"{target} exists and is not a model package, so it is not replaced; choose another name.")


def _replace(temporary: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{secrets.token_hex(6)}.old")
    if target.exists():
        target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
