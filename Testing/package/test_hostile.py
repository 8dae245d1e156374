"""Packages nobody should trust: each is refused with a PackageError, and nothing is written or allocated for it."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mskd.errors import PackageError
from mskd.package import open_package
from mskd.package.manifest import parse_manifest

WEIGHTS = "weights.safetensors"


@pytest.fixture(scope="module")
def sound(threshold_package: Callable[..., Any]) -> Path:
    return threshold_package((0.5, 1.5)).path


@pytest.fixture
def victim(sound: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def refused(path: Path) -> str:
    with pytest.raises(PackageError) as caught:
        open_package(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4
    return str(caught.value)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((folder / "model.json").read_text())
    change(data)
    (folder / "model.json").write_text(json.dumps(data))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Put other bytes in a file and its hash in the manifest, as an attacker would."""
    (folder / name).write_bytes(content)
    edit(folder, lambda data: data["files"].update({name: hashlib.sha256(content).hexdigest()}))


@pytest.mark.parametrize("name", [WEIGHTS, "probe.safetensors", "card.md"])
@pytest.mark.parametrize("place", [0, -1])
def test_flipped_byte(victim: Path, name: str, place: int) -> None:
    content = bytearray((victim / name).read_bytes())
    content[place] ^= 1
    (victim / name).write_bytes(content)
    assert "SHA-256" in refused(victim)


def test_nothing_there(tmp_path: Path) -> None:
    assert "There is no model" in refused(tmp_path / "absent")
    assert "no model.json" in refused(tmp_path)
    (tmp_path / "model.mskd.zip").write_bytes(b"PK\x03\x04 and so on")
    assert "neither" in refused(tmp_path / "model.mskd.zip")


def test_folder_of_a_run_points_at_its_model(tmp_path: Path, sound: Path) -> None:
    shutil.copytree(sound, tmp_path / "run" / "model")
    assert f"did you mean {tmp_path / 'run' / 'model'}" in refused(tmp_path / "run")


@pytest.mark.parametrize("name", [WEIGHTS, "probe.safetensors", "card.md", "model.json"])
def test_missing_file(victim: Path, name: str) -> None:
    (victim / name).unlink()
    refused(victim)


@pytest.mark.parametrize("name", ["setup.py", "weights.pt", "notes.txt"])
def test_unlisted_file(victim: Path, name: str) -> None:
    (victim / name).write_text("surprise")
    assert "does not list" in refused(victim)


def test_listed_code_is_still_refused(victim: Path) -> None:
    replace(victim, "hook.py", b"print('hello')")
    assert "data only" in refused(victim)


def test_litter_of_operating_systems_is_ignored(victim: Path) -> None:
    (victim / ".DS_Store").write_bytes(b"\0")
    open_package(victim)


def test_links_and_folders(victim: Path, tmp_path: Path) -> None:
    (victim / "more").mkdir()
    assert "not a plain file" in refused(victim)
    (victim / "more").rmdir()
    secret = tmp_path / "secret"
    secret.write_bytes((victim / "card.md").read_bytes())
    (victim / "card.md").unlink()
    (victim / "card.md").symlink_to(secret)
    assert "not a plain file" in refused(victim)


@pytest.mark.parametrize("version", ["2.0", "99.1", "1", "x.y", 1.0, None, [], "1.0.0"])
def test_schema_versions(victim: Path, version: Any) -> None:
    edit(victim, lambda data: data.update(schema_version=version))
    sentence = refused(victim)
    assert "schema" in sentence
    if version in ("2.0", "99.1"):
        assert "update the program" in sentence


def test_a_key_of_a_newer_minor_schema_asks_for_an_update(victim: Path) -> None:
    edit(victim, lambda data: data.update(schema_version="1.99", tomorrow=1))
    sentence = refused(victim)
    assert "'tomorrow'" in sentence
    assert "update the program" in sentence


def test_training_data_of_another_number_of_channels(victim: Path) -> None:
    span = {"low": 1.0, "high": 2.0}
    known = {"cases": 1, "spacing": [span] * 3, "extent": [span] * 3, "tilt": 0.0, "mirrored": [False]}
    edit(victim, lambda data: data.update(training_data={**known, "intensities": [[span] * 3] * 3}))
    assert "3 channels" in refused(victim)
    edit(victim, lambda data: data.update(training_data={**known, "intensities": [[{"low": 2.0, "high": 1.0}] * 3]}))
    assert "low must not be above high" in refused(victim)


def test_holes_of_a_label_that_is_none(victim: Path) -> None:
    edit(victim, lambda data: data.update(fill_holes=["nothing"]))
    assert "fill_holes names ['nothing']" in refused(victim)


def test_unknown_key_suggests_the_nearest(victim: Path) -> None:
    edit(victim, lambda data: data.update(licens="MIT"))
    assert "'licence'" in refused(victim)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema_version": "1.0", "schema_version": "1.0"}',
        b'{"schema_version": "1.0", "spacing": [NaN, 1, 1]}',
        b'{"schema_version": "1.0", "spacing": [' + b"9" * 10_000 + b"]}",
    ],
)
def test_manifests_that_are_none(victim: Path, text: bytes) -> None:
    (victim / "model.json").write_bytes(text)
    refused(victim)


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("a pickle ran",))


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickle_in_disguise(victim: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    stream = io.BytesIO()
    if kind == "torch":
        torch.save({"weight": torch.zeros(2)}, stream)
    else:
        pickle.dump(Bomb(), stream)
    replace(victim, WEIGHTS, stream.getvalue())
    assert "pickle" in refused(victim)
    assert "a pickle ran" not in capsys.readouterr().out


def header(entries: Any, body: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4,
        struct.pack("<Q", 1 << 60) + b"{}",
        header(b"not json"),
        header([]),
        header({}),
        header({"w": {}}),
        header({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, b"\0" * 4),
        header({"w": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}, b"\0" * 4),
        header({"w": {"dtype": "F32", "shape": [float("-inf")], "data_offsets": [0, 4]}}, b"\0" * 4),
        header(b"[" * 50_000),
    ],
)
def test_safetensors_that_are_none(victim: Path, content: bytes) -> None:
    replace(victim, WEIGHTS, content)
    refused(victim)


def test_offsets_that_lie(victim: Path) -> None:
    content = (victim / WEIGHTS).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    entries = json.loads(content[8 : 8 + length])
    entries["head.bias"]["data_offsets"] = [0, 1 << 40]
    replace(victim, WEIGHTS, header(entries, content[8 + length :]))
    with pytest.raises(PackageError):
        open_package(victim).load_network()


@pytest.mark.parametrize("change", ["shape", "missing", "extra", "kind", "nan"])
def test_weights_of_another_network(victim: Path, change: str) -> None:
    from safetensors.torch import load, save

    tensors = load((victim / WEIGHTS).read_bytes())
    if change == "shape":
        tensors["head.bias"] = torch.zeros(4)
    elif change == "missing":
        del tensors["head.bias"]
    elif change == "extra":
        tensors["adapter.weight"] = torch.zeros(1)
    elif change == "kind":
        tensors["head.bias"] = torch.zeros(3, dtype=torch.int64)
    else:
        tensors["head.bias"][0] = float("nan")
    replace(victim, WEIGHTS, save(tensors))
    with pytest.raises(PackageError, match=r"head\.bias|adapter\.weight"):
        open_package(victim).load_network()


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": [1024] * 8, "kernels": [[7, 7, 7]] * 8},
        {"channels": [10**9, 10**9]},
        {"channels": [2, 4], "strides": [[4, 4, 4]] * 2, "norm": "instance"},
        {"channels": [2] * 8, "strides": [[4, 4, 4]] * 8},
        {"channels": [2, 4], "classes": 5},
        {"channels": [2, 4], "in_channels": 2},
        {"channels": [2, 4], "dim": 2},
        {"channels": [2, 4], "device": "cuda"},
        {"channels": []},
    ],
)
def test_networks_that_are_monsters_or_do_not_fit(victim: Path, arguments: dict[str, Any]) -> None:
    edit(victim, lambda data: data["network"]["arguments"].update(arguments))
    refused(victim)


def test_unknown_network(victim: Path) -> None:
    edit(victim, lambda data: data["network"].update(name="os.system"))
    assert "no network 'os.system'" in refused(victim)


def packed(path: Path, folder: Path, extra: list[tuple[zipfile.ZipInfo, bytes]] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        for entry, content in extra or []:
            archive.writestr(entry, content)
    return path


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "a/../../evil", "C:\\evil", "..\\evil", "./card.md"])
def test_zip_paths_that_escape(tmp_path: Path, sound: Path, name: str) -> None:
    box = tmp_path / "box"
    box.mkdir()
    path = packed(box / "m.mskd.zip", sound, [(zipfile.ZipInfo(name), b"evil")])
    assert "leads out" in refused(path)
    assert {entry.name for entry in tmp_path.rglob("*")} == {"box", "m.mskd.zip"}


def test_zip_links(tmp_path: Path, sound: Path) -> None:
    entry = zipfile.ZipInfo("LICENSE.txt")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "link" in refused(packed(tmp_path / "m.mskd.zip", sound, [(entry, b"/etc/passwd")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_duplicates_and_folders(tmp_path: Path, sound: Path) -> None:
    assert "twice" in refused(packed(tmp_path / "a.mskd.zip", sound, [(zipfile.ZipInfo("card.md"), b"other")]))
    assert "flat" in refused(packed(tmp_path / "b.mskd.zip", sound, [(zipfile.ZipInfo("sub/x.txt"), b"other")]))


def test_zip_bomb_by_ratio(tmp_path: Path, sound: Path) -> None:
    bomb = zipfile.ZipInfo("LICENSE.txt")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    assert "zip bomb" in refused(packed(tmp_path / "m.mskd.zip", sound, [(bomb, b"\0" * (8 << 20))]))


def test_zip_bomb_by_declared_size(tmp_path: Path, sound: Path) -> None:
    path = packed(tmp_path / "m.mskd.zip", sound)
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, central + 20, 0xFFFFFFF0)  # compressed
    struct.pack_into("<I", content, central + 24, 0xFFFFFFF0)  # uncompressed: nearly 4 GiB
    path.write_bytes(content)
    assert "at most" in refused(path)


def test_zip_that_lies_about_its_sizes(tmp_path: Path, sound: Path) -> None:
    path = packed(tmp_path / "m.mskd.zip", sound)
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, central + 24, 10)
    path.write_bytes(content)
    refused(path)


def test_encrypted_zip(tmp_path: Path, sound: Path) -> None:
    path = packed(tmp_path / "m.mskd.zip", sound)
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    content[central + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in refused(path)


def refusal(read: Callable[[], object]) -> str | None:
    """The sentence of a PackageError, or None when there was none; any other exception goes through."""
    try:
        read()
    except PackageError as error:
        return str(error)
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_manifests_are_read_or_refused(sound: Path, data: st.DataObject) -> None:
    manifest = json.loads((sound / "model.json").read_text())
    place: Any = manifest
    for _ in range(data.draw(st.integers(0, 3))):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)):
            break
        place = place[key]
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    if isinstance(place, dict) and data.draw(st.booleans()):
        place[data.draw(st.text(max_size=8))] = data.draw(JSON)
    elif keys:
        place[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    sentence = refusal(lambda: parse_manifest(json.dumps(manifest).encode(), source="fuzz"))
    assert sentence is None or sentence.startswith("fuzz: ")


@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_mutated_zips_are_opened_or_refused(
    tmp_path_factory: pytest.TempPathFactory, sound: Path, flips: list[tuple[int, int]]
) -> None:
    path = packed(tmp_path_factory.mktemp("fuzz") / "m.mskd.zip", sound)
    content = bytearray(path.read_bytes())
    for place, bits in flips:
        content[place % len(content)] ^= bits
    path.write_bytes(content)
    assert "\n" not in (refusal(lambda: open_package(path)) or "")
