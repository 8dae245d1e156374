"""Two processes that each hold half of a batch learn what one process learns from all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mskd.distillation import METHODS


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, torch.Tensor]]:
    """World size -> name -> loss and gradient, averaged over the ranks."""
    folder, worker = tmp_path_factory.mktemp("ranks"), Path(__file__).with_name("rank_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(world), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank, world in ((0, 2), (1, 2), (0, 1))
    ]
    try:
        for process in processes:
            _, complaint = process.communicate(timeout=120)
            assert process.returncode == 0, complaint
    finally:
        for process in processes:
            process.kill()
    return {world: torch.load(folder / f"of-{world}.pt", weights_only=True) for world in (1, 2)}


@pytest.mark.parametrize("kind", ["", "-control"])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("method", METHODS.names())
def test_the_mean_of_two_ranks_is_the_joined_batch(results, method, dim, kind):
    name = f"{method}{kind}-{dim}d"
    assert results[1][name][0] > 1e-3
    assert results[1][name][1:].abs().max() > 1e-6
    torch.testing.assert_close(results[2][name], results[1][name], rtol=1e-9, atol=1e-12)
