"""Thousands of spoilt packages: each is refused with a PackageError or is as good as it was, and nothing else happens.

While a package is read, no file is opened for writing, no program or connection begins, and memory is bounded. The
examples are the same in every run; MSKD_FUZZ=20 draws twenty times as many, others each time.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import stat
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mskd.errors import PackageError
from mskd.package import Package, open_package, verify_package

FILES = ("model.json", "weights.safetensors", "probe.safetensors", "card.md")
resource = pytest.importorskip("resource")
if not Path("/proc/self/statm").exists():
    pytest.skip("looks into /proc", allow_module_level=True)
EXTRA_MEMORY = 1 << 30
TIMES = float(os.environ.get("MSKD_FUZZ", "1"))
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def fuzz(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=max(1, round(examples * TIMES)),
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        phases=[Phase.generate],  # to make a failing package small takes minutes and shows little
        suppress_health_check=list(HealthCheck),
    )


class Witness:
    """Hears from the interpreter whatever this process does to the world outside."""

    def __init__(self) -> None:
        self.watching = False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)  # can never be taken away again

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.watching:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if writes or event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {arguments!r:.100}")

    @contextmanager
    def watch(self) -> Iterator[None]:
        self.watching, self.seen = True, []
        try:
            yield
        finally:
            self.watching = False
        assert self.seen == []


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness()


@pytest.fixture(scope="module")
def sound(threshold_package: Callable[..., Any]) -> Package:
    package = threshold_package((0.5, 1.5))
    verify_package(package)  # whatever is imported late is imported now
    return package


@contextmanager
def bounded_memory() -> Iterator[None]:
    """More than a gigabyte beyond what the process has now is refused by the system, as a MemoryError."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + EXTRA_MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def try_package(path: Path, witness: Witness) -> Package | None:
    """The package if everything in it was accepted; any exception but a PackageError goes through."""
    around = sorted(path.parent.iterdir())
    try:
        with bounded_memory(), witness.watch():
            package = open_package(path)
            verify_package(package)
            return package
    except PackageError as refusal:
        sentence = str(refusal)
    finally:
        assert sorted(path.parent.iterdir()) == around
    assert "\n" not in sentence, sentence[:200]
    assert len(sentence) < 4000, sentence[:200]
    return None


def write(place: Path, files: dict[str, bytes], *, rehash: bool = False) -> Path:
    """A package folder; with ``rehash`` its manifest gets the right hashes, as an attacker would see to."""
    if rehash:
        manifest = json.loads(files["model.json"])
        manifest["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in manifest["files"]}
        files = {**files, "model.json": json.dumps(manifest).encode()}
    folder = place / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


NUMBERS = [
    0,
    -1,
    1,
    2,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    10**400,
    1e308,
    -1e308,
    1e-320,
    0.5,
]
ODD = [
    None,
    True,
    False,
    "",
    "x" * 5000,
    "\0",
    "../../evil",
    "é\U0001f9e0",
    "\ud800",
    "NaN",
    [],
    {},
    [[]],
    [None],
    {"": {}},
]
VALUES = st.sampled_from([*NUMBERS, *ODD]).map(copy.deepcopy) | st.integers() | st.floats() | st.text(max_size=12)
SIZES = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0]


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@st.composite
def spoilt_json(draw: st.DrawFn, original: Any) -> Any:
    """A copy with one to four values, keys or items changed anywhere in it."""
    tree = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 4))):
        spot = tree
        while True:
            keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(spot[key], (dict, list)) and spot[key] and draw(st.integers(0, 3)):
                spot = spot[key]
                continue
            how = draw(st.sampled_from(["value", "value", "delete", "add", "deep", "swap"]))
            if how == "value":
                spot[key] = draw(VALUES)
            elif how == "delete":
                del spot[key]
            elif how == "deep":
                spot[key] = nested(draw(st.sampled_from([3, 60, 900])))
            elif how == "swap":
                spot[key] = copy.deepcopy(spot[draw(st.sampled_from(keys))])
            elif isinstance(spot, dict):
                spot[draw(st.text(max_size=8))] = draw(VALUES)
            else:
                spot.extend([draw(VALUES)] * draw(st.sampled_from([1, 300])))
            break
    return tree


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """One to six flips, insertions, deletions, doublings, cuts and sizes that lie."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from([1, 2, 4, 8, 64, 1024]))
        how = draw(st.sampled_from(["flip", "flip", "insert", "delete", "double", "cut", "size"]))
        if how == "flip" and data:
            data[start] ^= draw(st.integers(1, 255))
        elif how == "insert":
            data[start:start] = draw(st.binary(min_size=1, max_size=16))
        elif how == "delete":
            del data[start : start + length]
        elif how == "double":
            data[start:start] = data[start : start + length]
        elif how == "cut":
            del data[start:]
        elif how == "size":
            data[start : start + 4] = struct.pack("<I", draw(st.sampled_from(SIZES)))
    return bytes(data)


@given(data=st.data())
@fuzz(500)
def test_manifests(place: Path, sound: Package, witness: Witness, data: st.DataObject) -> None:
    tree = data.draw(spoilt_json(json.loads(sound.files["model.json"])))
    text = json.dumps(tree).encode()
    package = try_package(write(place, {**sound.files, "model.json": text}), witness)
    if package is not None:
        assert {name: package.files[name] for name in FILES[1:]} == {name: sound.files[name] for name in FILES[1:]}


@given(data=st.data())
@fuzz(500)
def test_bytes_of_manifests(place: Path, sound: Package, witness: Witness, data: st.DataObject) -> None:
    text = data.draw(spoilt_bytes(sound.files["model.json"]))
    try_package(write(place, {**sound.files, "model.json": text}), witness)


@pytest.mark.parametrize("name", ["weights.safetensors", "probe.safetensors"])
@given(data=st.data())
@fuzz(250)
def test_headers_of_tensors(place: Path, sound: Package, witness: Witness, name: str, data: st.DataObject) -> None:
    content = sound.files[name]
    (length,) = struct.unpack_from("<Q", content)
    header = json.dumps(data.draw(spoilt_json(json.loads(content[8 : 8 + length])))).encode()
    size = data.draw(st.sampled_from([len(header)] * 6 + [0, len(header) - 1, 1 << 40, (1 << 64) - 1]))
    spoilt = struct.pack("<Q", size) + header + content[8 + length :]
    try_package(write(place, {**sound.files, name: spoilt}, rehash=True), witness)


@pytest.mark.parametrize("name", FILES[1:])
@given(data=st.data())
@fuzz(200)
def test_bytes_of_files(place: Path, sound: Package, witness: Witness, name: str, data: st.DataObject) -> None:
    spoilt = data.draw(spoilt_bytes(sound.files[name]))
    package = try_package(write(place, {**sound.files, name: spoilt}), witness)
    assert package is None or spoilt == sound.files[name]
    try_package(write(place, {**sound.files, name: spoilt}, rehash=True), witness)


NAMES = [*FILES, "LICENSE.txt", "NOTICE.txt", ".DS_Store", "__MACOSX/card.md", "model/", "model/model.json", "hook.py"]
NAMES += ["../model.json", "/etc/evil", "C:\\evil", "a\\b", "./card.md", "a/../../b", "", "/", "\0card.md", "x" * 300]
KINDS = [0, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFIFO, stat.S_IFCHR]


@given(data=st.data())
@fuzz(500)
def test_zips(place: Path, sound: Package, witness: Witness, data: st.DataObject) -> None:
    path = place / "model.mskd.zip"
    order = data.draw(st.permutations(FILES))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # a name that comes twice
        for name in order:
            archive.writestr(_entry(data, name, [0]), sound.files[name])
        for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=2)):
            content = data.draw(st.sampled_from([b"", b"evil", bytes(2 << 20), *sound.files.values()]))
            archive.writestr(_entry(data, name, KINDS), content)
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(spoilt_bytes(path.read_bytes())))
    package = try_package(path, witness)
    assert package is None or package.files == sound.files


def _entry(data: st.DataObject, name: str, kinds: list[int]) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    entry.external_attr = data.draw(st.sampled_from(kinds)) << 16
    return entry


def test_the_witness_sees(place: Path) -> None:
    witness = Witness()
    with pytest.raises(AssertionError, match="open"), witness.watch():
        (place / "evil").write_text("")
    (place / "evil").unlink()
