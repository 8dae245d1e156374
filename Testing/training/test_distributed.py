"""Several processes are one run: the same weights as one process with the joined batch, and no end by a dead rank."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from mskd import ranks
from mskd.data.patches import Batch
from mskd.distillation.criterion import Distillation
from mskd.distillation.settings import DistillationSettings
from mskd.networks import build_network
from mskd.package import open_package
from mskd.spec import NetworkSpec
from mskd.training.distributed import distribute, process_group, synchronise_batch_norm
from mskd.training.run import RunOptions, distil, train
from mskd.training.settings import LossSettings, Recipe, load_recipe
from mskd.training.supervision import DeepSupervision
from mskd.training.task import Task

TIMES = {"seconds_per_step", "loader_wait"}


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "PYTHONPATH": str(root / "Training"), "OMP_NUM_THREADS": "1"}


def command(processes: int, *words: object) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    launcher += ["--nproc-per-node", str(processes)]
    return [sys.executable, *(launcher if processes > 1 else []), "-m", "mskd", *map(str, words)]


def run(root: Path, processes: int, *words: object) -> None:
    done = subprocess.run(
        command(processes, *words), env=environment(root), capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return open_package(folder / "model").load_network().state_dict()


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def make_task(distil: bool, supervise: bool) -> tuple[Task, Batch]:
    """A student and a batch of four that differ much from one another: absent organs, ignored voxels."""
    torch.manual_seed(0)
    arguments = {"dim": 2, "in_channels": 1, "classes": 3, "channels": [4, 6, 8]}
    student, teacher = (build_network(NetworkSpec(name="light_unet", arguments=arguments)).double() for _ in range(2))
    synchronise_batch_norm(student)
    labels = torch.zeros(4, 16, 16, dtype=torch.long)
    labels[0, 2:6, 2:6], labels[1, 4:14, 4:14], labels[2, 8:15, 1:7], labels[2, 0:2] = 1, 2, 2, -1
    images = torch.randn(4, 1, 16, 16, dtype=torch.float64) + labels[:, None].double()
    loss = LossSettings()
    distillation = Distillation(DistillationSettings(limit=0.1), student, teacher, images) if distil else None
    supervision = DeepSupervision(student, 3, images[:1], loss).double() if supervise else None
    return Task(student, loss, supervision=supervision, distillation=distillation).double(), Batch(
        images, labels, ("",) * 4
    )


def gradients(distil: bool, supervise: bool, part: slice) -> dict[str, Any]:
    """Loss, gradients and statistics of one step on a part of the batch."""
    task, batch = make_task(distil, supervise)
    module = distribute(task.train(), partly_used=False)
    assert batch.labels is not None
    terms = module(
        Batch(batch.images[part], batch.labels[part], batch.cases[part]), 1.0, torch.autocast("cpu", enabled=False)
    )
    torch.stack(list(terms.values())).sum().backward()
    return {
        "terms": {name: float(term.detach()) for name, term in terms.items()},
        "gradients": {name: value.grad for name, value in task.named_parameters() if value.grad is not None},
        "statistics": dict(task.named_buffers()),
    }


def on_rank(number: int, folder: Path, distil: bool, supervise: bool) -> None:
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    torch.set_num_threads(1)
    with process_group("cpu") as device:
        assert (ranks.world(), ranks.rank(), device) == (2, number, "cpu")
        torch.save(gradients(distil, supervise, slice(2 * number, 2 * number + 2)), folder / f"{number}.pt")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(("distil", "supervise"), [(False, False), (True, True)])
def test_the_mean_gradient_of_two_ranks_is_that_of_the_joined_batch(
    tmp_path: Path, distil: bool, supervise: bool
) -> None:
    wanted = gradients(distil, supervise, slice(0, 4))
    (tmp_path / "port").write_text(str(free_port()))
    mp.spawn(on_rank, (tmp_path, distil, supervise), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2))
    for name, value in wanted["terms"].items():
        assert (first["terms"][name] + second["terms"][name]) / 2 == pytest.approx(value, rel=1e-9), name
    assert first["gradients"].keys() == wanted["gradients"].keys()
    for found in (first, second):
        for kind in ("gradients", "statistics"):
            for name, value in wanted[kind].items():
                torch.testing.assert_close(found[kind][name], value, rtol=1e-7, atol=1e-9, msg=f"{kind} of {name}")


def test_two_ranks_train_as_one_with_the_doubled_batch(
    root: Path, tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    def options(name: str) -> RunOptions:
        return RunOptions(tmp_path / name, device="cpu", cache=tmp_path / "cache")

    def recipe(*overrides: str) -> Recipe:
        common = ("teacher.optimization.steps=60", "student.optimization.deep_supervision=true")
        return load_recipe(str(tiny_recipe), (*common, *overrides))

    teacher = train(tiny_dataset, recipe(), "teacher", options("teacher")).path
    distil(tiny_dataset, str(teacher), recipe("student.optimization.batch=4"), options("one"))
    distil(tiny_dataset, str(teacher), recipe("student.optimization.batch=2"), options("other"))
    words = ("distill", tiny_dataset, "--recipe", tiny_recipe, "--device", "cpu", "--teacher", teacher)
    words = (*words, "--cache", tmp_path / "cache", "--set", "student.optimization.deep_supervision=true")
    run(root, 2, *words, "--output", tmp_path / "two")
    one, two, other = (weights(tmp_path / name) for name in ("one", "two", "other"))
    learnt = [name for name, value in one.items() if value.is_floating_point()]

    def apart(found: dict[str, torch.Tensor]) -> float:
        return max(float((found[name] - one[name]).norm() / one[name].norm().clamp_min(0.1)) for name in learnt)

    assert apart(two) < 0.02 < 0.1 < apart(other)  # Adam makes much of rounding, and more of another batch
    for alone, together in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for name in alone:
            if name.startswith(("loss", "dice")):
                assert together[name] == pytest.approx(alone[name], rel=5e-3, abs=5e-3), name
    assert json.loads((tmp_path / "two" / "settings.json").read_text())["processes"] == 2


def test_a_killed_rank_ends_the_run_and_it_resumes_bit_for_bit(
    root: Path, tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    long = ("--set", "student.optimization.steps=60", "--set", "student.optimization.validate_every=10")
    words = ("train", tiny_dataset, "--recipe", tiny_recipe, "--role", "student", "--device", "cpu", *long)
    words = (*words, "--cache", tmp_path / "cache")
    run(root, 2, *words, "--output", tmp_path / "whole")
    cut = command(2, *words, "--output", tmp_path / "cut")
    with subprocess.Popen(cut, env=environment(root), stderr=subprocess.PIPE, encoding="utf-8") as launcher:
        until((tmp_path / "cut/checkpoints/step-00000020.pt").is_file)
        os.kill(rank_process(launcher.pid, 1), signal.SIGKILL)
        launcher.communicate(timeout=120)
        assert launcher.returncode != 0
    assert not (tmp_path / "cut/model").exists()
    run(root, 2, *words, "--output", tmp_path / "cut", "--resume")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


def until(happened: Callable[[], bool]) -> None:
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen within a minute")


def rank_process(launcher: int, number: int) -> int:
    """The process of a rank among the launcher's children."""
    wanted = f"RANK={number}".encode()
    for status in Path("/proc").glob("[0-9]*/stat"):
        child = status.read_text().rsplit(")", 1)[1].split()[1] == str(launcher)
        if child and wanted in (status.parent / "environ").read_bytes().split(b"\0"):
            return int(status.parent.name)
    raise AssertionError("the launcher has no such child")
