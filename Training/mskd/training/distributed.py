"""Several processes as one run, started by ``torchrun``: the process group, and what is averaged between its ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mskd.errors import SettingsError
from mskd.ranks import distributed, total, world
from mskd.training.task import Task


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the group that ``torchrun`` announces in the environment; without it, a run of one process.

    Args:
        device: What the user asked for (``auto``, ``cpu``, ``cuda``).

    Yields:
        The device of this rank: on GPUs each takes its own.

    Raises:
        SettingsError: one GPU asked for by number, or fewer GPUs than processes on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    local = int(os.environ["LOCAL_RANK"])
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(
            f"--device {device}: a distributed run takes auto, cpu or cuda; each process picks its own."
        )
    if cuda and local >= torch.cuda.device_count():
        raise SettingsError(
            f"Process {local} of this machine has no GPU left (there are {torch.cuda.device_count()}); give torchrun "
            "--nproc-per-node the number of GPUs, or --device cpu."
        )
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield f"cuda:{local}" if cuda else "cpu"
    finally:
        dist.destroy_process_group()


def distribute(task: Task, *, partly_used: bool) -> nn.Module:
    """The task, with gradients averaged over the ranks when there are several; only what is trained is wrapped.

    Args:
        partly_used: Whether some steps leave parameters without gradient.
    """
    if not distributed():
        return task
    return DistributedDataParallel(task, find_unused_parameters=partly_used)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Let every BatchNorm, in place, take its statistics over the batches of all ranks; keys and weights stay."""
    if not distributed():
        return
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _synchronised(child))


def _synchronised(norm: _BatchNorm) -> nn.Module:
    if norm.weight is not None and norm.weight.is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    synchronised = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(synchronised, name, getattr(norm, name))
    return synchronised


class SynchronisedBatchNorm(_BatchNorm):
    """``nn.SyncBatchNorm`` for processors, where torch has none: statistics over the equal batches of all ranks."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Both 2D and 3D."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        features = input if input.dtype == torch.float64 else input.float()
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1, *(1,) * (input.ndim - 2)]
        number = world() * features.numel() // features.shape[1]
        mean = total(features.sum(axes)) / number
        centred = features - mean.view(shape)
        variance = total(centred.square().sum(axes)) / number
        self._remember(mean, variance * number / max(1, number - 1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)
