"""The training loop, whole: forward, losses, backward, step, average, validate, checkpoint."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mskd.data.patches import Batch
from mskd.errors import Cancelled, InputError
from mskd.events import CancelCheck, Event, Listener
from mskd.networks.base import channels_last
from mskd.training.checkpoint import Checkpoints
from mskd.training.log import RunLog, epoch_text
from mskd.training.settings import Optimization
from mskd.training.task import Task
from mskd.training.validation import Validation

WARM_UP = 0.02


Tensors = tuple[Tensor, ...] | list[Tensor]
Draw = Callable[[int], Batch]
Validate = Callable[[nn.Module], Validation]


def learning_rate(step: int, settings: Optimization) -> float:
    """Linear warm-up over the first 2 % of the steps, then half a cosine down to zero."""
    warm = max(1, round(WARM_UP * settings.steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, settings.steps - warm)))


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is native; emulated, it is tens of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return device.type == "cpu" and native()


class Trainer:
    """Trains a task's network; everything it knows is in ``state()``, so a resumed run equals an uninterrupted one.

    Args:
        draw: step -> batch, a pure function.
        validate: network -> Dice on the validation cases.
        seed: Of what a loss may draw at random (the controls of the distillation do), below 2**32.
    """

    def __init__(
        self,
        task: Task,
        average: AveragedModel,
        settings: Optimization,
        device: torch.device,
        draw: Draw,
        validate: Validate,
        checkpoints: Checkpoints,
        seed: int = 0,
    ) -> None:
        self.task, self.settings, self.device = task, settings, device
        self.draw, self.validate, self.checkpoints = draw, validate, checkpoints
        self.average, self.seed = average, seed
        self.parameters = [*task.network.parameters(), *task.criterion.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, settings.learning_rate, weight_decay=settings.weight_decay)
        low = settings.precision == "bf16" or (settings.precision == "auto" and computes_in_bfloat16(device))
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=low)
        self.step = 0
        self.best = -1.0
        self._sums: dict[str, float] = defaultdict(float)

    def state(self) -> dict[str, Any]:
        return {
            "network": self.task.network.state_dict(),
            "average": self.average.state_dict(),
            "criterion": self.task.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "sums": dict(self._sums),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.task.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.task.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], state["best"]
        self._sums = defaultdict(float, state["sums"])

    def fit(self, log: RunLog, on_event: Listener, cancelled: CancelCheck) -> None:
        """Train until the last step; the best average so far is in ``checkpoints``.

        Raises:
            Cancelled: after a checkpoint was written; InputError: a loss that is not finite, with its term and cases.
        """
        steps, every = self.settings.steps, self.settings.validate_every or self.settings.steps
        started, since = time.monotonic(), self.step
        self.task.network.train()
        with ThreadPoolExecutor(1) as loader:
            ahead = loader.submit(self.draw, self.step)
            while self.step < steps:
                if cancelled():
                    self.checkpoints.save(self.step, self.state())
                    raise Cancelled(f"Stopped after step {self.step} of {steps}; continue with --resume.")
                batch, ahead = ahead.result(), loader.submit(self.draw, self.step + 1)
                loss = self.advance(batch)
                on_event(Event("train", self.step, steps, f"loss {loss:.3f}"))
                if self.step % every == 0 or self.step == steps:
                    seconds = (time.monotonic() - started) / (self.step - since)
                    self._validate(log, on_event, seconds)
                    self.checkpoints.save(self.step, self.state())

    def advance(self, batch: Batch) -> float:
        """One optimiser step on one batch; returns the loss.

        Raises:
            InputError: a term or the gradient is not finite; the weights are as they were.
        """
        layout = channels_last(batch.images.ndim - 2)
        images = batch.images.to(self.device, memory_format=layout)
        labels = None if batch.labels is None else batch.labels.to(self.device)
        progress = self.step / self.settings.steps
        torch.manual_seed(self.seed << 31 | self.step)  # so that this step draws the same after a resumption
        terms = self.task.terms(Batch(images, labels, batch.cases), progress, self.autocast)
        values = {name: float(term.detach()) for name, term in terms.items()}
        for name, value in values.items():
            self._require_finite(value, f"the loss term '{name}'", batch)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip))
        self._require_finite(norm, "the norm of the gradient", batch)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        self.optimizer.step()
        self.average.update_parameters(self.task.network)
        for name, value in {**values, "steps": 1.0}.items():
            self._sums[name] += value
        self.step += 1
        return sum(values.values())

    def _require_finite(self, value: float, what: str, batch: Batch) -> None:
        if not math.isfinite(value):
            raise InputError(
                f"Step {self.step + 1}: {what} is {value} for cases {', '.join(batch.cases)}; look at these images, or "
                "lower optimization.learning_rate. The last checkpoint is untouched."
            )

    def _validate(self, log: RunLog, on_event: Listener, seconds: float) -> None:
        network = self.average.module
        network.eval()
        result = self.validate(network)
        count = self._sums.pop("steps")
        losses = {f"loss/{name}": total / count for name, total in self._sums.items()}
        self._sums.clear()
        row = {
            "step": self.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds_per_step": round(seconds, 4),
            **losses,
            "dice/mean": None if math.isnan(result.dice) else result.dice,
            **{f"dice/{name}": None if math.isnan(value) else value for name, value in result.per_label.items()},
        }
        log.row(row)
        if math.isnan(result.dice) or result.dice > self.best:
            self.best = -1.0 if math.isnan(result.dice) else result.dice
            self.checkpoints.save_best({"step": self.step, "dice": result.dice, "network": network.state_dict()})
        on_event(Event("validate", self.step, self.settings.steps, epoch_text(row)))


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of weights and statistics; with ``decay`` 0 it is the network itself.

    The decay grows with the steps, ``min(decay, (1 + t) / (10 + t))``, so that a short run forgets its random start.
    """

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        steps = float(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)
