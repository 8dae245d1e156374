"""What the processes of one distributed run agree on; in a single process every function is the identity.

The law of every loss here: its mean over the ranks is the loss of the joined batch, and so is the mean of its
gradients, which is what DistributedDataParallel applies. A mean over batch items needs nothing for that when all ranks
hold equally many; a sum divided by something counted is written ``world() * sum / total(count)``.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


def distributed() -> bool:
    """Whether this process is one of several in a process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if distributed() else 1


def rank() -> int:
    """Number of this process, 0 for the one that writes."""
    return dist.get_rank() if distributed() else 0


def total(values: Tensor) -> Tensor:
    """Sum over the ranks; gradients are summed over the ranks likewise, so every rank must call this, in one order."""
    if not distributed():
        return values
    summed: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return summed


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone(memory_format=torch.contiguous_format)  # the ranks' memory is added place by place
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed: Tensor = _Total.apply(gradient)  # type: ignore[no-untyped-call]
        return summed


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is true on any rank."""
    if not distributed():
        return flag
    found = torch.tensor(float(flag), device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found.item())


def gather(item: Item) -> list[Item]:
    """The item of every rank, in order of rank, on every rank."""
    if not distributed():
        return [item]
    items: list[Item | None] = [None] * world()
    dist.all_gather_object(items, item)
    return items  # type: ignore[return-value]


def barrier() -> None:
    """Wait for all ranks."""
    if distributed():
        dist.barrier()
