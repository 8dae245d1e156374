"""The worker as a real process: answers, cancel in the middle, garbage, ends of stdin, and a parent that dies."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mskd.inference.jobs import private_folder
from mskd.inference.messages import Run, parse_request

PLACE = {"spacing": [1.0, 1.0, 1.0], "origin": [0.0, 0.0, 0.0], "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
PATIENCE = 60


class Client:
    """Talks to a worker in a process of its own."""

    def __init__(self, root: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(root / "Training"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mskd.inference.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.decode())

    def send(self, message: Any) -> None:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        assert self.process.stdin
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def next(self) -> dict[str, Any]:
        return json.loads(self._lines.get(timeout=PATIENCE))

    def answer(self, identity: int | None, events: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """The next message that is no event."""
        while (message := self.next())["type"] == "event":
            assert message["id"] == identity
            if events is not None:
                events.append(message)
        assert message.get("id") == identity
        return message

    def end(self) -> int:
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def shared(root: Path) -> Iterator[Client]:
    client = Client(root)
    yield client
    assert client.end() == 0


@pytest.fixture(scope="module")
def model(threshold_package: Callable[..., Any]) -> str:
    return str(threshold_package((10.5, 20.5)).path)


@pytest.fixture(scope="module")
def slow_model(threshold_package: Callable[..., Any]) -> str:
    """Hundreds of windows for a volume that a whole one would take in a moment."""
    package = threshold_package((10.5, 20.5))
    arguments = {**package.manifest.network.arguments, "norm": "instance"}
    spec = package.manifest.network.model_copy(update={"arguments": arguments})
    return str(threshold_package((10.5, 20.5), network=spec, patch=(16, 16, 16)).path)


def request(folder: Path, model: str, shape: tuple[int, ...] = (9, 20, 21), identity: int = 2) -> dict[str, Any]:
    voxels = np.random.default_rng(0).integers(1, 41, shape).astype(np.int16)
    np.save(folder / "in.npy", voxels)
    return {
        "type": "run",
        "id": identity,
        "model": model,
        "device": "cpu",
        "input": str(folder / "in.npy"),
        "geometry": PLACE,
        "output": str(folder / "out.npy"),
        "region": None,
    }


def test_hello(shared: Client) -> None:
    shared.send({"type": "hello"})
    ready = shared.next()
    assert ready["type"] == "ready"
    assert ready["protocol"] == 3
    assert "cpu" in ready["devices"]
    assert {"mskd", "torch"} <= set(ready["versions"])


def test_describe(shared: Client, model: str) -> None:
    shared.send({"type": "describe", "id": 1, "model": model})
    answer = shared.answer(1)
    assert answer["type"] == "described"
    assert answer["manifest"] == json.loads((Path(model) / "model.json").read_text())


@pytest.mark.parametrize("shape", [(9, 20, 21), (1, 9, 20, 21)])
def test_run(shared: Client, model: str, tmp_path: Path, shape: tuple[int, ...]) -> None:
    events: list[dict[str, Any]] = []
    shared.send(request(tmp_path, model, shape))
    result = shared.answer(2, events)
    assert result["type"] == "result"
    labels = np.load(result["output"])
    truth = np.digitize(np.load(tmp_path / "in.npy").reshape(9, 20, 21), (10.5, 20.5))
    assert result["box"] == [[0, 9], [0, 20], [0, 21]]
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, truth)
    assert [label["name"] for label in result["labels"]] == ["above 1", "above 2"]
    assert result["report"]["device"] == "cpu"
    phases = list(dict.fromkeys(event["phase"] for event in events))
    assert [phase for phase in phases if phase != "load"] == ["read", "prepare", "windows", "restore"]
    assert {path.name for path in tmp_path.iterdir()} == {"in.npy", "out.npy"}


def test_run_in_a_region(shared: Client, model: str, tmp_path: Path) -> None:
    box = {"minimum": [-12.0, -12.0, 2.0], "maximum": [-4.0, -4.0, 5.0]}
    shared.send({**request(tmp_path, model), "region": box})
    result = shared.answer(2)
    assert result["box"] == [[2, 6], [4, 13], [4, 13]]
    truth = np.digitize(np.load(tmp_path / "in.npy")[2:6, 4:13, 4:13], (10.5, 20.5))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), truth)


def test_voxels_far_from_the_region_do_not_matter(shared: Client, model: str, tmp_path: Path) -> None:
    message = request(tmp_path, model)
    voxels = np.load(tmp_path / "in.npy").astype(np.float32)
    voxels[8, 19, 20] = np.nan
    np.save(tmp_path / "in.npy", voxels)
    shared.send({**message, "region": {"minimum": [-6.0, -6.0, 1.0], "maximum": [-4.0, -4.0, 2.0]}})
    assert shared.answer(2)["type"] == "result"
    shared.send(message)
    assert shared.answer(2)["code"] == "input"


def test_cancel_in_the_middle_and_run_again(shared: Client, model: str, slow_model: str, tmp_path: Path) -> None:
    shared.send(request(tmp_path, slow_model, (120, 120, 120), 5))
    while (message := shared.next()).get("phase") != "windows" or message["done"] < 2:
        assert message["type"] == "event", message
    shared.send({"type": "cancel", "id": 5})
    assert shared.answer(5) == {"type": "cancelled", "id": 5}
    assert not (tmp_path / "out.npy").exists()
    shared.send(request(tmp_path, model, identity=6))
    assert shared.answer(6)["type"] == "result"


def test_cancel_of_a_run_that_waits(shared: Client, model: str, slow_model: str, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    shared.send(request(tmp_path / "first", slow_model, (60, 60, 60), 7))
    shared.send(request(tmp_path, model, identity=8))
    shared.send({"type": "cancel", "id": 8})
    assert shared.answer(7)["type"] == "result"
    assert shared.answer(8)["type"] == "cancelled"


def test_cancel_of_something_else_is_ignored(shared: Client, model: str, tmp_path: Path) -> None:
    shared.send({"type": "cancel", "id": 99})
    shared.send(request(tmp_path, model, identity=99))
    assert shared.answer(99)["type"] == "result"


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"type":"dance"}',
        b'{"type":"describe","id":"one","model":"x"}',
        b'{"type":"hello","extra":1}',
        b"[" * 5000,
        b"x" * (1 << 20),
    ],
)
def test_garbage_is_answered_and_survived(shared: Client, line: bytes) -> None:
    shared.send(line)
    answer = shared.answer(None)
    assert (answer["type"], answer["code"]) == ("error", "settings")
    assert "\n" not in answer["message"]
    while True:  # a line of more than a megabyte is several
        shared.send({"type": "hello"})
        message = shared.next()
        if message["type"] == "ready":
            break
        assert message["type"] == "error"


@pytest.mark.parametrize(
    ("change", "code", "exit_code"),
    [
        ({"model": "/no/such/model"}, "package", 4),
        ({"device": "tpu"}, "settings", 2),
        ({"input": "/no/such.npy"}, "input", 3),
        ({"geometry": {**PLACE, "spacing": [0.0, 1.0, 1.0]}}, "input", 3),
        ({"output": "/no/such/folder/out.npy"}, "input", 3),
        ({"region": {"minimum": [500.0, 0.0, 0.0], "maximum": [600.0, 1.0, 1.0]}}, "input", 3),
        ({"region": {"minimum": [5.0, 0.0, 0.0], "maximum": [4.0, 1.0, 1.0]}}, "settings", 2),
        ({"surprise": 1}, "settings", 2),
    ],
)
def test_errors_keep_it_alive(
    shared: Client, model: str, tmp_path: Path, change: dict[str, Any], code: str, exit_code: int
) -> None:
    shared.send({**request(tmp_path, model, identity=11), **change})
    answer = shared.answer(11)
    assert (answer["type"], answer["code"], answer["exit_code"]) == ("error", code, exit_code)
    shared.send(request(tmp_path, model, identity=12))
    assert shared.answer(12)["type"] == "result"


@pytest.mark.parametrize("content", ["nan", "pickle", "text", "complex", "flat"])
def test_arrays_that_are_no_image(shared: Client, model: str, tmp_path: Path, content: str) -> None:
    message = request(tmp_path, model, identity=13)
    path = tmp_path / "in.npy"
    arrays = {
        "nan": np.full((3, 4, 5), np.nan),
        "pickle": np.array([{"a": 1}], dtype=object),
        "complex": np.zeros((3, 4, 5), dtype=complex),
        "flat": np.zeros(5),
    }
    if content == "text":
        path.write_text("hello")
    else:
        np.save(path, arrays[content], allow_pickle=True)
    shared.send(message)
    assert shared.answer(13)["code"] == "input"


def test_a_changed_model_is_read_again(
    shared: Client, threshold_package: Callable[..., Any], threshold_network: Callable[..., Any], tmp_path: Path
) -> None:
    from mskd.package import save_package

    package = threshold_package((10.5,))
    shared.send(request(tmp_path, str(package.path), identity=14))
    assert shared.answer(14)["report"]["model"]["fingerprint"] == package.fingerprint
    changed = save_package(package.path, *threshold_network((30.5,)), overwrite=True)
    shared.send(request(tmp_path, str(package.path), identity=15))
    assert shared.answer(15)["report"]["model"]["fingerprint"] == changed.fingerprint


def test_quit_in_the_middle(root: Path, slow_model: str, tmp_path: Path) -> None:
    client = Client(root)
    client.send(request(tmp_path, slow_model, (160, 160, 160)))
    while client.next().get("phase") != "windows":
        pass
    client.send({"type": "quit"})
    assert client.process.wait(PATIENCE) == 0
    assert not (tmp_path / "out.npy").exists()


def test_end_of_stdin_finishes_what_was_asked(root: Path, model: str, tmp_path: Path) -> None:
    lines = [{"type": "hello"}, request(tmp_path, model), {"type": "describe", "id": 3, "model": model}]
    environment = {**os.environ, "PYTHONPATH": str(root / "Training"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mskd.inference.worker"],
        input="\n".join(map(json.dumps, lines)),
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=PATIENCE,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [answer["type"] for answer in answers if answer["type"] != "event"] == ["ready", "result", "described"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ends_when_its_parent_is_killed(root: Path, slow_model: str, tmp_path: Path) -> None:
    # The parent holds both ends of the pipes, starts a long run, and is killed without a word.
    parent, folder = tmp_path / "parent.py", tmp_path / "mskd-1-private"
    folder.mkdir()
    parent.write_text(
        "import json, subprocess, sys, time\n"
        "worker = subprocess.Popen([sys.executable, '-m', 'mskd.inference.worker'], stdin=-1, stdout=-1)\n"
        f"worker.stdin.write({json.dumps(request(folder, slow_model, (120, 120, 120))).encode()!r} + b'\\n')\n"
        "worker.stdin.flush()\n"
        "while b'windows' not in worker.stdout.readline(): pass\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "Training"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(parent)], stdout=subprocess.PIPE, env=environment)
    assert process.stdout
    worker = int(process.stdout.readline())
    assert _alive(worker)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 10
    while _alive(worker) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _alive(worker)
    assert [entry.name for entry in tmp_path.iterdir()] == ["parent.py"]


def test_only_the_folder_of_the_run_is_ever_removed(tmp_path: Path) -> None:
    def of(source: str, target: str) -> Path | None:
        message = {"type": "run", "id": 1, "model": "m", "geometry": PLACE, "input": source, "output": target}
        asked = parse_request(json.dumps(message).encode())
        assert isinstance(asked, Run)
        return private_folder(asked)

    private = tmp_path / "mskd-12-a_b1"
    assert of(f"{private}/in.npy", f"{private}/out.npy") == private
    assert of(f"{private}/in.npy", f"{tmp_path}/out.npy") is None
    assert of(f"{tmp_path}/in.npy", f"{tmp_path}/out.npy") is None
    assert of(f"{private}/deep/in.npy", f"{private}/deep/out.npy") is None
    private.symlink_to(tmp_path)
    assert of(f"{private}/in.npy", f"{private}/out.npy") is None


def test_two_clients_at_once(root: Path, shared: Client, model: str, tmp_path: Path) -> None:
    other = Client(root)
    truth = {}
    for client, name, shape in ((shared, "one", (30, 40, 50)), (other, "two", (9, 60, 20))):
        (tmp_path / name).mkdir()
        client.send(request(tmp_path / name, model, shape))
        truth[name] = np.digitize(np.load(tmp_path / name / "in.npy"), (10.5, 20.5))
    for client, name in ((shared, "one"), (other, "two")):
        assert client.answer(2)["type"] == "result"
        np.testing.assert_array_equal(np.load(tmp_path / name / "out.npy"), truth[name])
    assert other.end() == 0


def test_a_line_in_pieces_is_one_and_half_a_line_at_the_end_is_none(root: Path, model: str) -> None:
    client = Client(root)
    assert client.process.stdin
    for piece in (b'{"type": "he', b'llo"}', b"\n", b'{"type": "describe", "id": 3, "mod'):
        client.process.stdin.write(piece)
        client.process.stdin.flush()
        time.sleep(0.05)
    assert client.next()["type"] == "ready"
    assert client.end() == 0
    answer = client.answer(None)
    assert (answer["type"], answer["code"]) == ("error", "settings")


def test_binary_noise_is_answered_and_survived(shared: Client, model: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 200_000).astype(np.uint8).tobytes()
    shared.send(noise)
    shared.send({"type": "hello"})
    while (message := shared.next())["type"] != "ready":
        assert (message["type"], message["code"]) == ("error", "settings")
    shared.send(request(tmp_path, model))
    assert shared.answer(2)["type"] == "result"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_does_not_grow_with_ever_new_shapes(root: Path, model: str, tmp_path: Path) -> None:
    runs = int(os.environ.get("MSKD_SOAK", "40"))  # 200 for the long version
    client, sizes = Client(root), []
    shapes = np.random.default_rng(0).integers(20, 60, (runs, 3))
    shapes[0] = 60  # what is kept of the largest one serves all others
    for index, shape in enumerate(shapes):
        client.send(request(tmp_path, model, tuple(map(int, shape)), index))
        assert client.answer(index)["type"] == "result"
        sizes.append(int(Path(f"/proc/{client.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert client.end() == 0
    assert max(sizes[-runs // 3 :]) - max(sizes[: runs // 3]) < 20e6


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
