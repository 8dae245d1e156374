"""Training on a GPU learns, and goes on after a stop as if there had been none."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mskd import ranks
from mskd.errors import Cancelled
from mskd.package import open_package
from mskd.training.run import RunOptions, distil, train
from mskd.training.settings import load_recipe

TIMES = {"seconds_per_step", "loader_wait"}
DICE = 0.7
"""Less than what a small student reaches on a processor in as many steps."""


@pytest.fixture
def run(tiny_dataset: Path, tiny_recipe: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Trains into a folder of this name; without a teacher's folder, on labels alone."""

    def start(name: str, *overrides: str, role: str = "student", teacher: Path | None = None, **options: Any) -> Path:
        recipe = load_recipe(str(tiny_recipe), overrides)
        where = RunOptions(tmp_path / name, device="cuda", cache=tmp_path / "cache", **options)
        if teacher is None:
            train(tiny_dataset, recipe, role, where)  # type: ignore[arg-type]
        else:
            distil(tiny_dataset, str(teacher / "model"), recipe, where)
        return tmp_path / name

    yield start
    torch.use_deterministic_algorithms(False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return open_package(folder / "model").load_network().state_dict()


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_student_learns(run: Callable[..., Path], precision: str) -> None:
    settings = {"steps": 300, "validate_every": 100, "precision": f'"{precision}"', "ema": 0.95}
    wide = "student.arguments={channels=[8, 16]}"
    folder = run("learns", wide, *(f"student.optimization.{name}={value}" for name, value in settings.items()))
    assert rows(folder)[-1]["dice/mean"] > DICE


STRIDED = "student.arguments={channels=[4, 8], strides=[[2, 2, 2], [2, 2, 2]]}"


class BetweenValidations:
    """Asks to stop two steps after the first validation."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint, self.asked = checkpoint, 0

    def __call__(self) -> bool:
        self.asked += self.checkpoint.is_file()
        return self.asked > 2


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("student", ("student.optimization.workers=2",)),
        ("student", (STRIDED,)),
        ("student", ("student.optimization.deep_supervision=true", 'loss.voxel="focal"')),
        ("teacher", ()),
        ("distilled", ()),
        ("distilled", (STRIDED, "distillation.limit=0.1")),
        ("distilled", ("distillation.limit=0.1", 'student.optimization.precision="fp16"')),
        ("distilled", ('distillation.teacher_logits="cached"', "distillation.terms={kd={}}")),
    ],
)
def test_a_stopped_run_resumes_bit_for_bit(
    run: Callable[..., Path], tmp_path: Path, kind: str, more: tuple[str, ...]
) -> None:
    role = "teacher" if kind == "teacher" else "student"
    teacher = run("taught", role="teacher") if kind == "distilled" else None
    settings = {"steps": 12, "validate_every": 4, "precision": '"auto"'}
    repeats = ("deterministic=true", *(f"{role}.optimization.{name}={value}" for name, value in settings.items()))
    run("whole", *repeats, *more, role=role, teacher=teacher)
    stop = BetweenValidations(tmp_path / "cut" / "checkpoints" / "step-00000004.pt")
    with pytest.raises(Cancelled, match="Stopped after step 6"):
        run("cut", *repeats, *more, role=role, teacher=teacher, cancelled=stop)
    run("cut", *repeats, *more, role=role, teacher=teacher, resume=True)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


@pytest.fixture
def alone_in_a_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A process group over NCCL, of one process that is to talk as if there were others."""
    monkeypatch.setattr(ranks, "distributed", lambda: True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    torch.cuda.set_device(0)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield torch.device("cuda", 0)
    dist.destroy_process_group()


def test_what_ranks_tell_each_other_goes_through_nccl(alone_in_a_group: torch.device) -> None:
    device = alone_in_a_group
    assert dist.get_backend() == "nccl"
    assert ranks.any_rank(True, device)
    assert not ranks.any_rank(False, device)
    assert ranks.gather({"dice": 0.5}) == [{"dice": 0.5}]
    values = torch.tensor([1.0, 2.0], device=device, requires_grad=True)
    ranks.total(values).sum().backward()
    assert torch.equal(values.grad, torch.ones_like(values))
    module = nn.parallel.DistributedDataParallel(nn.Conv3d(1, 2, 3).to(device))
    module(torch.ones(1, 1, 4, 4, 4, device=device)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    ranks.barrier()
