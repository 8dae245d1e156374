"""The worker client: every run gets exactly one answer, whatever the worker does."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_worker
import numpy as np
import pytest
from fake_worker import InProcess
from toy_models import write_model

from MSKDSegmentationLib.client import WorkerClient
from MSKDSegmentationLib.errors import SegmentationError
from MSKDSegmentationLib.process_tree import descendants
from MSKDSegmentationLib.transport import SubprocessTransport

COMMAND = [sys.executable, fake_worker.__file__]
GEOMETRY = {"spacing": [1, 1, 1], "origin": [0, 0, 0], "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1]}


@pytest.fixture
def client() -> Iterator[WorkerClient]:
    """A client of the toy worker in a process of its own."""
    client = WorkerClient(SubprocessTransport, lambda: COMMAND, lambda: dict(os.environ), grace=0.5)
    yield client
    client.stop()


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., list[dict]]:
    """Starts a run of the named toy model and returns the list in which its messages arrive."""

    def start(client: WorkerClient, name: str) -> list[dict]:
        model = tmp_path / name
        if not model.exists():
            write_model(tmp_path, name)
        np.save(tmp_path / "in.npy", np.arange(24).reshape(2, 3, 4))
        messages: list[dict] = []
        request = {"input": str(tmp_path / "in.npy"), "output": str(tmp_path / "out.npy"), "geometry": GEOMETRY}
        client.run({"model": str(model), "device": "auto", "region": None, **request}, messages.append)
        return messages

    return start


def wait(client: WorkerClient, messages: list[dict], kinds: tuple[str, ...] = ("result", "error", "cancelled")) -> dict:
    """Poll until a message of these kinds is there."""
    until = time.monotonic() + 30
    while not (messages and messages[-1]["type"] in kinds):
        assert time.monotonic() < until, messages
        client.poll(0.05)
    return messages[-1]


def test_events_come_in_order_and_then_the_result(client: WorkerClient, ask) -> None:
    messages = ask(client, "toy")
    answer = wait(client, messages)
    assert [message["type"] for message in messages] == ["event"] * 4 + ["result"]
    assert [label["name"] for label in answer["labels"]] == ["Left kidney", "Spleen", "Lesion"]
    assert np.load(answer["output"]).shape == (2, 3, 4)
    assert not client.busy


def test_a_worker_that_hears_nothing_is_given_up(ask) -> None:
    deaf = [sys.executable, "-c", "import time; time.sleep(600)"]
    client = WorkerClient(SubprocessTransport, lambda: deaf, lambda: dict(os.environ), patience=1.0)
    answer = wait(client, ask(client, "toy"))
    assert answer["type"] == "error"
    assert "did not start within 1 seconds" in answer["message"]
    assert not client.alive


def test_a_run_may_take_longer_than_a_start(client: WorkerClient, ask) -> None:
    messages = ask(client, "slow")
    wait(client, messages, ("event",))
    assert client._ready_by is None
    client.cancel()
    assert wait(client, messages)["type"] == "cancelled"


def test_the_worker_stays_warm(client: WorkerClient, ask) -> None:
    wait(client, ask(client, "toy"))
    process = client._transport._process.pid
    wait(client, ask(client, "toy"))
    assert client._transport._process.pid == process


def test_an_error_of_the_worker_is_passed_on_and_the_worker_lives(client: WorkerClient, ask) -> None:
    answer = wait(client, ask(client, "refuse"))
    assert (answer["type"], answer["message"]) == ("error", fake_worker.REFUSAL)
    assert client.alive
    assert wait(client, ask(client, "toy"))["type"] == "result"


def test_a_crash_is_told_with_the_last_words_and_the_next_run_works(client: WorkerClient, ask) -> None:
    answer = wait(client, ask(client, "crash"))
    assert answer["type"] == "error"
    assert "exit code 9" in answer["message"]
    assert "MemoryError: 3 GB" in answer["message"]
    assert not client.alive
    assert wait(client, ask(client, "toy"))["type"] == "result"


def test_cancel_asks_first(client: WorkerClient, ask) -> None:
    messages = ask(client, "slow")
    wait(client, messages, kinds=("event",))
    client.cancel()
    assert wait(client, messages)["type"] == "cancelled"
    assert client.alive
    assert wait(client, ask(client, "toy"))["type"] == "result"


def test_cancel_kills_the_whole_tree_of_a_worker_that_does_not_listen(client: WorkerClient, ask) -> None:
    messages = ask(client, "stubborn")
    wait(client, messages, kinds=("event",))
    pid = client._transport._process.pid
    until = time.monotonic() + 10
    while not (below := descendants(pid)):
        assert time.monotonic() < until
        time.sleep(0.02)
    client.cancel()
    assert wait(client, messages)["type"] == "cancelled"
    assert not client.alive
    assert all(_gone(process) for process in [pid, *below])


def test_another_protocol_is_an_error_and_ends_the_worker(client: WorkerClient, ask) -> None:
    answer = wait(client, ask(client, "newer"))
    assert "protocol 4" in answer["message"]
    assert not client.alive


def test_stopping_during_a_run_answers_it(client: WorkerClient, ask) -> None:
    messages = ask(client, "slow")
    wait(client, messages, kinds=("event",))
    client.stop()
    assert messages[-1]["type"] == "cancelled"


def test_stopping_an_idle_worker_lets_it_end(client: WorkerClient, ask) -> None:
    wait(client, ask(client, "toy"))
    process = client._transport._process
    client.stop()
    assert process.returncode == 0


def test_an_idle_worker_that_does_not_end_is_killed(ask, monkeypatch) -> None:
    worker = InProcess()
    killed: list[bool] = []
    monkeypatch.setattr(worker, "close_input", lambda: None)
    monkeypatch.setattr(worker, "kill", lambda: killed.append(True))
    client = WorkerClient(lambda: worker, list, dict, grace=0.1)
    wait(client, ask(client, "toy"))
    client.stop()
    assert killed
    assert not client.alive


def test_a_program_that_is_not_there_is_an_error_at_once() -> None:
    client = WorkerClient(SubprocessTransport, lambda: ["/nowhere/PythonSlicer"], lambda: {})
    with pytest.raises(SegmentationError, match="'/nowhere/PythonSlicer' cannot be started"):
        client.run({}, lambda message: None)
    assert not client.busy


def test_a_module_that_is_not_there_is_an_answer(ask) -> None:
    client = WorkerClient(
        SubprocessTransport, lambda: [sys.executable, "-m", "no_such_module"], lambda: dict(os.environ)
    )
    assert "No module named no_such_module" in wait(client, ask(client, "toy"))["message"]


def test_two_runs_at_once_are_refused(ask) -> None:
    client = WorkerClient(InProcess, list, dict)
    ask(client, "toy")
    with pytest.raises(SegmentationError, match="still running"):
        ask(client, "toy")


def test_answers_of_an_earlier_run_are_passed_over(ask) -> None:
    worker = InProcess()
    client = WorkerClient(lambda: worker, list, dict)
    messages = ask(client, "toy")
    worker.on_line('{"type": "result", "id": 0, "output": "old"}')
    assert not messages
    client.poll()
    assert messages[-1]["output"] != "old"


@pytest.mark.parametrize("line", ["", "hello", "[]", "3", "{}", '{"type": "event"', '{"type": "error", "id": null}'])
def test_lines_that_are_no_messages_do_no_harm(ask, line: str) -> None:
    worker = InProcess()
    client = WorkerClient(lambda: worker, list, dict)
    messages = ask(client, "toy")
    worker.on_line(line)
    client.poll()
    assert messages[-1]["type"] == "result"


def _gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            # A killed orphan stays a zombie where nobody collects it: that is gone too.
            if Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False
