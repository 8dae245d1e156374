"""Reading ``model.json``: text to a validated manifest, and back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mskd.errors import PackageError
from mskd.spec import SCHEMA_VERSION, Manifest, validate

MANIFEST = "model.json"
WEIGHTS = "weights.safetensors"
PROBE = "probe.safetensors"
CARD = "card.md"
REQUIRED = (WEIGHTS, PROBE, CARD)
OPTIONAL = ("model.onnx", "LICENSE.txt", "NOTICE.txt")


def parse_manifest(text: bytes, *, source: str) -> Manifest:
    """Validate the bytes of a ``model.json``.

    Raises:
        PackageError: not JSON, doubled or unknown keys, NaN, a newer major schema, values outside their rule, or files
            that a package may not hold.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as fault:
        raise PackageError(f"{source}: is no readable model description ({fault}); get the package again.") from fault
    if not isinstance(data, dict):
        raise PackageError(f"{source}: holds a {type(data).__name__}, not a model description; get the package again.")
    _known_schema(data.get("schema_version"), source)
    manifest = validate(Manifest, data, source=_with_age(source, data), error=PackageError)
    _known_files(manifest, source)
    return manifest


def manifest_text(manifest: Manifest) -> bytes:
    """The bytes of ``model.json``: readable, and the same for the same manifest."""
    return (json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()


def digest(data: bytes) -> str:
    """SHA-256, as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key appears twice")
    return record


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _known_schema(version: object, source: str) -> None:
    parts = version.split(".") if isinstance(version, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise PackageError(f"{source}: 'schema_version' is {version!r:.40}; it must be like '{SCHEMA_VERSION}'.")
    if int(parts[0]) != int(SCHEMA_VERSION.split(".")[0]):
        raise PackageError(
            f"{source}: has schema version {version}, and this program reads {SCHEMA_VERSION}; "
            "update the program, or get the package in a matching version."
        )


def _with_age(source: str, data: dict[str, Any]) -> str:
    """The source, and the reason for keys that are not known."""
    minor = int(data["schema_version"].split(".")[1])
    if minor <= int(SCHEMA_VERSION.split(".")[1]):
        return source
    return f"{source} (schema {data['schema_version']}; update the program, which knows {SCHEMA_VERSION})"


def _known_files(manifest: Manifest, source: str) -> None:
    missing = [name for name in REQUIRED if name not in manifest.files]
    strange = sorted(set(manifest.files) - {*REQUIRED, *OPTIONAL})
    if missing:
        raise PackageError(f"{source}: 'files' does not list {', '.join(missing)}; get the package again.")
    if strange:
        raise PackageError(
            f"{source}: 'files' lists {strange[0]!r:.80}, and a package holds data only "
            f"({', '.join((*REQUIRED, *OPTIONAL))})."
        )
