"""Opening a model package: everything in it is checked before any of it is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mskd.errors import PackageError
from mskd.networks import SegmentationNetwork
from mskd.package.bundled import bundled_models
from mskd.package.container import Container, open_container
from mskd.package.manifest import MANIFEST, PROBE, WEIGHTS, digest, parse_manifest
from mskd.package.weights import check_network, check_weights, load_weights, read_header
from mskd.spec import Manifest
from mskd.spec.base import suggestion


@dataclass(frozen=True)
class Package:
    """A package whose manifest, hashes and weight shapes were found right.

    Args:
        path: The folder or zip file.
        manifest: Everything about the network except its weights.
        fingerprint: SHA-256 of ``model.json``, which holds the hashes of all other files.
        files: The bytes that were checked, so that a later change on disk cannot get in.
    """

    path: Path
    manifest: Manifest
    fingerprint: str
    files: dict[str, bytes] = field(repr=False)

    def load_network(self) -> SegmentationNetwork:
        """A new network with the weights, in eval mode, on the CPU."""
        return load_weights(self.manifest, self.files[WEIGHTS], source=f"{self.path} ({WEIGHTS})")


def open_package(path: str | Path) -> Package:
    """Open a package folder, a ``.mskd.zip``, or a bundled model by its name.

    Raises:
        PackageError: it is not there, damaged, unsafe, too new or inconsistent.
    """
    place = find_package(path)
    if place.is_dir() and not (place / MANIFEST).is_file():
        inside = f"; did you mean {place / 'model'}?" if (place / "model" / MANIFEST).is_file() else "."
        raise PackageError(f"{place}: holds no {MANIFEST}, so it is not a model package{inside}")
    with open_container(place) as container:
        if MANIFEST not in container.sizes:
            raise PackageError(f"{place}: holds no {MANIFEST}, so it is not a model package.")
        text = container.read(MANIFEST)
        manifest = parse_manifest(text, source=f"{place} ({MANIFEST})")
        files = _read_listed(place, container, manifest)
    check_weights(check_network(manifest, source=str(place)), files[WEIGHTS], source=f"{place} ({WEIGHTS})")
    read_header(files[PROBE], source=f"{place} ({PROBE})")
    return Package(place, manifest, digest(text), {MANIFEST: text, **files})


def find_package(path: str | Path) -> Path:
    """The place of a package given by path or by the name of a bundled model.

    Raises:
        PackageError: there is no such path and no such model.
    """
    place = Path(path)
    if place.exists():
        return place
    bundled = bundled_models()
    if str(path) in bundled:
        return bundled[str(path)]
    raise PackageError(
        f"There is no model '{path}'{suggestion(str(path), list(bundled))} "
        "Give the path of a package or the name of a bundled model."
    )


def _read_listed(place: Path, container: Container, manifest: Manifest) -> dict[str, bytes]:
    """Read exactly the files that the manifest lists, each with its hash."""
    present = set(container.sizes) - {MANIFEST}
    missing, extra = sorted(manifest.files.keys() - present), sorted(present - manifest.files.keys())
    if missing:
        raise PackageError(f"{place}: {missing[0]} is missing; get the package again.")
    if extra:
        raise PackageError(f"{place}: holds {extra[0]!r:.80}, which {MANIFEST} does not list; remove it.")
    files = {}
    for name, expected in manifest.files.items():
        files[name] = container.read(name)
        if digest(files[name]) != expected:
            raise PackageError(
                f"{place}: {name} is damaged or was changed (its SHA-256 is not the one in {MANIFEST}); "
                "get the package again."
            )
    return files
