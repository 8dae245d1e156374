"""What a network's file must say for somebody to use it right: the manifest without what only we can read."""

from __future__ import annotations

import json
from typing import Any

import mskd
from mskd.inference.traced import AXES
from mskd.package import Package

KEY = "mskd"
"""Where the metadata lie inside a file."""
FIELDS = (
    "name",
    "version",
    "title",
    "description",
    "channels",
    "labels",
    "spacing",
    "orientation",
    "normalization",
    "patch",
    "largest_component",
    "licence",
    "citation",
    "intended_use",
)


def metadata(package: Package) -> dict[str, Any]:
    """JSON-able; ``spacing`` and ``patch`` are in array order, as in the package."""
    described = package.manifest.model_dump(mode="json")
    axes = ["n", "c", *AXES[package.manifest.dim]]
    return {
        **{name: described[name] for name in FIELDS},
        "image": {"axes": axes, "type": "float32", "sizes": "any batch and spatial size"},
        "logits": {"axes": axes, "type": "float32", "classes": package.manifest.classes, "label": "argmax over c"},
        "array_order": "spacing (mm) and patch (voxels) are in the order (z, y, x), or (y, x) for a 2D patch",
        "made_by": f"mskd {mskd.__version__}",
        "package_fingerprint": package.fingerprint,
    }


def metadata_text(package: Package) -> str:
    """The metadata as JSON."""
    return json.dumps(metadata(package), indent=2, ensure_ascii=False) + "\n"
