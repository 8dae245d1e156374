"""One rank of the two that test_ranks.py starts: every method's loss and gradient on this rank's part of a batch.

    python rank_worker.py RANK WORLD FOLDER

With WORLD 1 the one process takes the whole batch. What is written is the mean over the ranks, by rank 0.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from batches import Batch, make_batch, measure

from mskd.distillation import METHODS, Outputs

ITEMS = 4
CONTROLS = {"ffd": {"filter": "random"}, "rgd": {"filter": "random", "shuffled": True}}


def joined_batch(dim: int) -> Batch:
    """Items 0 and 1 show unequal organs or no label at all, item 2 no organ, item 3 an organ of one voxel."""
    batch = make_batch(dim, batch=ITEMS, side=8)
    labels = batch.labels.clone()
    labels[1] = 255
    labels[2:] = 0
    labels[3].view(-1)[7] = 2
    labels[0].view(-1)[::3] = -1
    return replace(batch, labels=labels)


def loss_and_gradient(method: str, term: dict, batch: Batch) -> torch.Tensor:
    """The loss, then its gradient to one gain per feature channel and class: what all ranks share, as weights are."""
    given = (batch.student.logits, *batch.student.features)
    gains = [torch.ones(tensor.shape[1], dtype=tensor.dtype, requires_grad=True) for tensor in given]
    scaled = [tensor * gain.view(1, -1, *[1] * (tensor.ndim - 2)) for tensor, gain in zip(given, gains, strict=True)]
    torch.manual_seed(5)
    loss = measure(method, replace(batch, student=Outputs(scaled[0], tuple(scaled[1:]))), term)
    found = torch.autograd.grad(loss, gains, allow_unused=True, materialize_grads=True)
    return torch.cat([loss.detach()[None], *found])


def main() -> None:
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    results = {}
    for dim in (2, 3):
        share = ITEMS // world
        mine = joined_batch(dim).map(lambda tensor, a=rank * share, b=(rank + 1) * share: tensor[a:b])
        for method in METHODS.names():
            for kind, term in {"": {}, "-control": CONTROLS.get(method, {})}.items():
                values = loss_and_gradient(method, term, mine)
                if world > 1:
                    dist.all_reduce(values)
                results[f"{method}{kind}-{dim}d"] = values / world
    if rank == 0:
        torch.save(results, folder / f"of-{world}.pt")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
