"""A Dask cluster: two workers, one of them killed in the middle; nothing lost, nothing done twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from doubles import begun

from mskd.batch import Outcome, Place, segment_folder
from mskd.errors import Cancelled, InputError, SettingsError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=0, silence_logs="CRITICAL"
    ) as cluster:
        yield cluster


@pytest.fixture
def place(cluster: Any) -> Place:
    return Place(("cpu",), scheduler=cluster.scheduler_address)


def test_a_worker_killed_in_the_middle(folder: Any, make_task: Callable[..., Any], place: Place) -> None:
    for number, name in enumerate("ghijkl", 7):
        folder.write(name, number)
    heard: list[Outcome] = []
    ledger = segment_folder(folder.cases(), make_task(meet=2, deadly_once=6), place, heard.append)
    assert [outcome.case for outcome in ledger.outcomes()] == list("abcdefghijkl")
    assert sorted(outcome.case for outcome in heard) == list("abcdefghijkl")
    assert not any(outcome.error or outcome.kept for outcome in heard)
    folder.check()
    assert Counter(begun(folder.log)) == {number: 2 if number == 6 else 1 for number in range(1, 13)}
    assert len(list(folder.log.iterdir())) >= 2


def test_faults_and_what_is_kept(
    folder: Any, make_task: Callable[..., Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.images / "b.nii.gz").write_text("broken")
    monkeypatch.chdir(folder.images.parent)  # workers run elsewhere
    folder.images, folder.results = (each.relative_to(folder.images.parent) for each in (folder.images, folder.results))
    first = segment_folder(folder.cases(), make_task(faulty=5), place)
    assert [outcome.exit_code for outcome in first.outcomes()] == [0, 3, 0, 0, 1, 0]
    before = folder.state()
    again = segment_folder(folder.cases(), make_task(), place)
    assert [outcome.kept for outcome in again.outcomes()] == [True, False, True, True, False, True]
    assert before.items() <= folder.state().items()
    folder.check("b")


def test_cancelled(folder: Any, make_task: Callable[..., Any], place: Place) -> None:
    with pytest.raises(Cancelled, match="of 6 cases"):
        segment_folder(folder.cases(), make_task(), place, cancelled=lambda: bool(folder.state()))
    segment_folder(folder.cases(), make_task(), place)
    folder.check()


def test_from_the_command_line(folder: Any, model: Any, cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from mskd.cli import main

    words = [folder.images, "--model", model.path, "-o", folder.results, "--scheduler", cluster.scheduler_address]
    with pytest.raises(SystemExit) as ended:
        main(["segment", *map(str, words)])
    assert not ended.value.code
    assert "6 of 6 cases are in" in capsys.readouterr().out
    folder.check()


def test_a_case_that_kills_every_worker(folder: Any, make_task: Callable[..., Any], place: Place) -> None:
    ledger = segment_folder(folder.cases(), make_task(deadly=1), place)
    assert [outcome.exit_code for outcome in ledger.outcomes()] == [1, 0, 0, 0, 0, 0]
    assert "died, one after the other" in ledger.outcomes()[0].error
    folder.check("a")


def test_nobody_answers(folder: Any, make_task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("mskd.batch.cluster.CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://x", "somewhere"):
        with pytest.raises(SettingsError, match="no Dask scheduler answers"):
            segment_folder(folder.cases(), make_task(), Place(("cpu",), scheduler=address))


def test_without_the_package(folder: Any, make_task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(SettingsError, match=r"install mskd\[cluster\]"):
        segment_folder(folder.cases(), make_task(), Place(("cpu",), scheduler="tcp://127.0.0.1:1"))


def test_a_scheduler_that_is_lost(folder: Any, make_task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("mskd.batch.cluster.CONNECT_SECONDS", 5)
    import dask

    impatient = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with (
        impatient,
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit=0, silence_logs="CRITICAL"
        ) as cluster,
    ):
        done: list[Outcome] = []

        def tell(outcome: Outcome) -> None:
            done.append(outcome)
            cluster.close()

        with pytest.raises(InputError, match="was lost; what is done is kept"):
            segment_folder(folder.cases(), make_task(), Place(("cpu",), scheduler=cluster.scheduler_address), tell)
    assert done
    assert f"{done[0].case}.nii.gz" in folder.state()
