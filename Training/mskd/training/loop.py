"""The training loop, whole: read, augment, forward, losses, backward, step, average, validate, checkpoint."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mskd.data.patches import Batch, Crops
from mskd.errors import Cancelled, InputError
from mskd.events import CancelCheck, Event, Listener
from mskd.ranks import any_rank, gather
from mskd.training.average import MovingAverage
from mskd.training.checkpoint import Checkpoints
from mskd.training.distributed import distribute
from mskd.training.loader import Loader
from mskd.training.log import RunLog, epoch_text
from mskd.training.precision import mixed_precision
from mskd.training.settings import Optimization
from mskd.training.task import Task, Terms
from mskd.training.validation import Validation

CHECKPOINT_SECONDS = 600.0
"""A checkpoint is written at every validation, and in between when the last one is this old."""

MOST_SKIPPED = 20
"""Steps in a row that may be skipped; more are no accident."""


@dataclass(frozen=True)
class Feed:
    """Where batches come from, and where the network is measured.

    Args:
        read: (step, number of the batch in it) -> crops, a pure function, picklable where processes read.
        augment: Crops on the device -> batch.
        validate: network -> Dice on the validation cases, the same on every rank.
        show: Pictures of what the last validation found, by name.
    """

    read: Callable[[int, int], Crops]
    augment: Callable[[Crops], Batch]
    validate: Callable[[nn.Module], Validation]
    show: Callable[[], Mapping[str, np.ndarray]] = dict


def learning_rate(step: int, settings: Optimization) -> float:
    """A linear warm-up, then the schedule."""
    warm = max(1, round(settings.warm_up * settings.steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, settings.steps - warm)
    falls = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "poly": (1 - done) ** 0.9, "constant": 1.0}
    return settings.learning_rate * falls[settings.schedule]


class NotFinite(Exception):
    """A loss term or a gradient that is no number, with the cases it came from."""

    def __init__(self, what: str, value: float, cases: Iterable[str]) -> None:
        self.what, self.value, self.cases = what, value, tuple(dict.fromkeys(cases))
        super().__init__(f"{what} is {value} for cases {', '.join(self.cases)}")


class Trainer:
    """Trains a task's network; everything it knows is in ``state()``, so a resumed run equals an uninterrupted one.

    Args:
        average: Moving average of the network, which is validated and shipped.
        seed: Of what a loss may draw at random (the controls of the distillation do), below 2**32.
    """

    def __init__(
        self,
        task: Task,
        average: MovingAverage,
        settings: Optimization,
        device: torch.device,
        feed: Feed,
        checkpoints: Checkpoints,
        seed: int = 0,
    ) -> None:
        self.task, self.average, self.settings, self.device = task, average, settings, device
        self.feed, self.checkpoints, self.seed = feed, checkpoints, seed
        self.forward = distribute(task, partly_used=settings.unlabelled > 0)
        self.parameters, self.buffers = list(task.parameters()), _Buffers(task)
        self.optimizer = torch.optim.AdamW(
            self.parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=device.type == "cuda"
        )
        self.autocast, self.scaler = mixed_precision(settings.precision, device)
        self.step, self.best, self.stale, self.skipped = 0, -1.0, 0, 0
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def state(self) -> dict[str, Any]:
        return {
            "network": self.task.network.state_dict(),
            "average": self.average.state_dict(),
            "criterion": self.task.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": {"best": self.best, "stale": self.stale, "skipped": self.skipped},
            "sums": dict(self._sums),
            "counts": dict(self._counts),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.task.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.task.criterion.load_state_dict(state["criterion"])
        for group in state["optimizer"]["param_groups"]:  # how a step is computed is no part of the state
            group["fused"] = self.device.type == "cuda"
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.best, self.stale, self.skipped = (state["progress"][name] for name in ("best", "stale", "skipped"))
        self._sums, self._counts = defaultdict(float, state["sums"]), defaultdict(int, state["counts"])

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the patience with a Dice that no longer rises is at its end."""
        patience = self.settings.patience
        return self.step >= self.settings.steps or (patience > 0 and self.stale >= patience)

    def fit(self, log: RunLog, on_event: Listener, cancelled: CancelCheck) -> None:
        """Train to the end; the best average so far is in ``checkpoints``.

        Raises:
            Cancelled: after a checkpoint was written. InputError: a loss that is not finite, with its term and cases,
                unless such steps are to be skipped.
        """
        settings, every = self.settings, self.settings.validate_every or self.settings.steps
        loader = self._loader(on_event)
        crops = iter(loader)
        clock = _Clock(loader, self.step)
        saved = time.monotonic()
        self.task.train()
        while not self.finished:
            if any_rank(cancelled(), self.device):
                self.checkpoints.save(self.step, self.state())
                raise Cancelled(f"Stopped after step {self.step} of {settings.steps}; continue with --resume.")
            validates = (self.step + 1) % every == 0 or self.step + 1 == settings.steps
            read = [next(crops) for _ in range(settings.accumulate)]
            try:
                with _tuned():
                    loss = self.advance((self.feed.augment(part.to(self.device)) for part in read), norms=validates)
                on_event(Event("train", self.step, settings.steps, f"loss {loss:.3f}"))
            except NotFinite as fault:
                self._skip(fault, log, on_event)
            if validates:
                self._validate(log, on_event, clock)
            if validates or time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.checkpoints.save(self.step, self.state())
                saved = time.monotonic()
            if validates:
                clock.start(self.step)

    def _loader(self, on_event: Listener) -> Loader[Crops]:
        each = self.settings.accumulate
        first, last = self.step * each, self.settings.steps * each
        return Loader(
            _Read(self.feed.read, each),
            first,
            last,
            workers=self.settings.workers,
            pin=self.device.type == "cuda",
            on_event=on_event,
        )

    def advance(self, batches: Iterable[Batch], *, norms: bool = False) -> float:
        """One optimiser step on one or more batches; returns the loss.

        Args:
            norms: Also measure the norm of each term's gradient.

        Raises:
            NotFinite: a term or the gradient is not finite; the weights and statistics are as they were.
        """
        self.buffers.keep()
        self.optimizer.zero_grad()
        try:
            loss, cases = self._gradients(batches, norms)
            self.scaler.unscale_(self.optimizer)
            norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip))
            statistics = {"the running statistics of the network": self.buffers.size()}
            if not self.scaler.is_enabled() or math.isfinite(norm):  # the scaler skips, and lowers its scale, by itself
                self._require_finite({"the norm of the gradient": norm, **statistics}, cases)
                self._add("gradient/total", norm)
            else:
                self._require_finite(statistics, cases)
        except NotFinite:
            self.buffers.put_back()
            raise
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.task.network)
        self.step, self.skipped = self.step + 1, 0
        return loss

    def _gradients(self, batches: Iterable[Batch], norms: bool) -> tuple[float, tuple[str, ...]]:
        """Add up the gradients of the batches; returns their mean loss and their cases."""
        progress, share = self.step / self.settings.steps, 1 / self.settings.accumulate
        torch.manual_seed(self.seed << 31 | self.step)  # so that this step draws the same after a resumption
        loss, cases = 0.0, tuple[str, ...]()
        for number, batch in enumerate(batches, start=1):
            cases += batch.cases
            with _last_only(self.forward, number == self.settings.accumulate):
                terms: Terms = self.forward(batch, progress, self.autocast)
                values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
                self._require_finite({f"the loss term '{name}'": value for name, value in values.items()}, batch.cases)
                if norms and number == 1:
                    self._measure(terms)
                self.scaler.scale(share * torch.stack(list(terms.values())).sum()).backward()
            for name, value in values.items():
                self._add(f"loss/{name}", value)
            for name, value in self.task.told().items():
                self._add(name, value)
            loss += share * sum(values.values())
        return loss, cases

    def _measure(self, terms: Terms) -> None:
        """The norm of each term's own gradient."""
        for name, term in terms.items():
            if term.requires_grad:
                found = torch.autograd.grad(term, self.parameters, retain_graph=True, allow_unused=True)
                norms = torch.stack([gradient.float().norm() for gradient in found if gradient is not None])
                self._add(f"gradient/{name}", float(norms.norm()))

    def _add(self, name: str, value: float) -> None:
        self._sums[name] += value
        self._counts[name] += 1

    def _require_finite(self, values: dict[str, float], cases: Iterable[str]) -> None:
        """Raises NotFinite on every rank when a value of any rank is not finite."""
        wrong = [(what, value) for what, value in values.items() if not math.isfinite(value)]
        if any_rank(bool(wrong), self.device):
            what, value = wrong[0] if wrong else ("a loss of another process", math.nan)
            raise NotFinite(what, value, cases)

    def _skip(self, fault: NotFinite, log: RunLog, on_event: Listener) -> None:
        self.step, self.skipped = self.step + 1, self.skipped + 1
        sentence = f"Step {self.step}: {fault}"
        if self.settings.not_finite == "stop" or self.skipped > MOST_SKIPPED:
            raise InputError(
                f"{sentence}; look at these images, or lower optimization.learning_rate. The last "
                "checkpoint is untouched."
            ) from fault
        log.problem({"step": self.step, "what": fault.what, "value": str(fault.value), "cases": fault.cases})
        on_event(Event("train", self.step, self.settings.steps, f"{sentence}; skipped"))

    def _validate(self, log: RunLog, on_event: Listener, clock: _Clock) -> None:
        pace = clock.read(self.step)
        network = self.average.module.eval()
        result = self.feed.validate(network)
        ours = {name: total / self._counts[name] for name, total in self._sums.items()}
        ranks = gather(ours)
        means = {name: sum(each[name] for each in ranks) / len(ranks) for name in ours}
        self._sums.clear()
        self._counts.clear()
        dice = {"mean": result.dice, **result.per_label}
        row = {
            "step": self.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **pace,
            **{name: means[name] for name in sorted(means, key=lambda name: name.startswith("gradient"))},
            **{f"dice/{name}": None if math.isnan(value) else value for name, value in dice.items()},
        }
        log.row(row)
        log.images(self.step, self.feed.show())
        better = math.isnan(result.dice) or result.dice > self.best
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = -1.0 if math.isnan(result.dice) else result.dice
            self.checkpoints.save_best({"step": self.step, "dice": result.dice, "network": network.state_dict()})
        on_event(Event("validate", self.step, self.settings.steps, epoch_text(row)))


class _Buffers:
    """The statistics of a network: kept before a step, put back when it fails."""

    def __init__(self, module: nn.Module) -> None:
        self._now = list(module.buffers())
        self._kept = [buffer.clone() for buffer in self._now]

    def keep(self) -> None:
        if self._now:
            torch._foreach_copy_(self._kept, self._now)

    def put_back(self) -> None:
        if self._now:
            torch._foreach_copy_(self._now, self._kept)

    def size(self) -> float:
        """A number that is finite where all of them are; a huge voxel may spoil the statistics of BatchNorm alone."""
        floats = [buffer for buffer in self._now if buffer.is_floating_point()]
        return float(torch.stack(torch._foreach_norm(floats, 1)).sum()) if floats else 0.0


class _Clock:
    """Seconds a step takes, and the share of them spent waiting for data; deaf to changes of the wall clock."""

    def __init__(self, loader: Loader[Any], step: int) -> None:
        self._loader = loader
        self.start(step)

    def start(self, step: int) -> None:
        """Count from here."""
        self._step, self._since, self._waited = step, time.monotonic(), self._loader.waited

    def read(self, step: int) -> dict[str, float]:
        """The figures since the start."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        return {
            "seconds_per_step": round(seconds / max(1, step - self._step), 4),
            "loader_wait": round((self._loader.waited - self._waited) / seconds, 4),
        }


class _Read:
    """Position in the run -> crops; a class, so that processes can be handed one."""

    def __init__(self, read: Callable[[int, int], Crops], accumulate: int) -> None:
        self._read, self._accumulate = read, accumulate

    def __call__(self, position: int) -> Crops:
        return self._read(*divmod(position, self._accumulate))


@contextmanager
def _tuned() -> Iterator[None]:
    """Let cuDNN measure its algorithms: patches, unlike the cases of a validation, are all of one size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _last_only(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Under DistributedDataParallel, the gradients are averaged over the ranks with the last batch of a step."""
    return nullcontext() if last or not isinstance(module, DistributedDataParallel) else module.no_sync()
