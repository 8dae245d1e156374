"""A teacher that is one of this project's model packages."""

from __future__ import annotations

from pathlib import Path

from mskd.package import bundled_models, open_package
from mskd.teachers.base import TEACHERS, Teacher


class PackageTeacher:
    """A package folder, a ``.mskd.zip``, or the name of a bundled model."""

    def recognises(self, source: str) -> bool:
        path = Path(source)
        return source in bundled_models() or (path / "model.json").is_file() or path.name.endswith(".mskd.zip")

    def open(self, source: str) -> Teacher:
        package = open_package(source)
        manifest = package.manifest
        return Teacher(
            name=manifest.name,
            network=package.load_network(),
            dim=manifest.dim,
            channels=manifest.channels,
            labels=manifest.labels,
            spacing=manifest.spacing,
            orientation=manifest.orientation,
            normalization=manifest.normalization,
            fingerprint=package.fingerprint,
            path=package.path,
        )


TEACHERS.register("mskd")(PackageTeacher())
