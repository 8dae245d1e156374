"""The loop: it learns, its schedule is what it says, faults in the loss stop it, checkpoints survive."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mskd.data.patches import Batch
from mskd.data.prepared import PreparedCase
from mskd.errors import InputError, SettingsError
from mskd.events import Event, silent
from mskd.networks import build_network
from mskd.spec import NetworkSpec
from mskd.training.average import MovingAverage
from mskd.training.checkpoint import Checkpoints
from mskd.training.log import RunLog
from mskd.training.loop import MOST_SKIPPED, Feed, NotFinite, Trainer, learning_rate
from mskd.training.settings import LossSettings, Optimization
from mskd.training.task import Task
from mskd.training.validation import Validation, chance_dice


class Crops:
    """What the loader hands over; here it is the batch already."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def to(self, device: torch.device) -> Crops:
        return self


def blob_crops(step: int, number: int) -> Crops:
    return Crops(blob_batch(step))


def blob_batch(step: int) -> Batch:
    labels = torch.zeros(2, 16, 16, 16, dtype=torch.long)
    labels[:, 3:9, 3:9, 3:9] = 1
    labels[:, 9:14, 6:12, 5:11] = 2
    noise = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    return Batch(labels[:, None].float() + 0.3 * noise, labels, ("a", "b"))


def make_trainer(folder: Path, dim: int = 3, norm: str = "batch", **changes: object) -> Trainer:
    arguments = {"dim": dim, "in_channels": 1, "classes": 3, "channels": [8, 16], "norm": norm}
    torch.manual_seed(0)
    network = build_network(NetworkSpec(name="light_unet", arguments=arguments))
    settings = Optimization.model_validate(
        {"steps": 60, "learning_rate": 0.01, "ema": 0.5, "validate_every": 0, "precision": "fp32", **changes}
    )
    average = MovingAverage(network, settings.ema)

    def validate(candidate: torch.nn.Module) -> Validation:
        batch = blob_batch(0)
        with torch.no_grad():
            found = candidate(batch.images).argmax(1)
        scores = [
            [
                float(2 * ((found == k) & (batch.labels == k)).sum() / ((found == k).sum() + (batch.labels == k).sum()))
                for k in (1, 2)
            ]
        ]
        return Validation(np.array(scores), ("a", "b"))

    device = torch.device("cpu")
    feed = Feed(blob_crops, lambda crops: crops.batch, validate)
    task = Task(network, LossSettings())
    return Trainer(task, average, settings, device, feed, Checkpoints(folder / "checkpoints", "digest"))


def test_one_batch_is_learnt_by_heart(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    log = RunLog(tmp_path)
    trainer.fit(log, silent, lambda: False)
    row = log.rows[-1]
    assert trainer.checkpoints.load_best()["dice"] > 0.99
    assert row["step"] == 60
    assert {
        "loss/dice",
        "loss/ce",
        "gradient/dice",
        "gradient/ce",
        "gradient/total",
        "dice/mean",
        "dice/a",
        "loader_wait",
    } <= row.keys()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.pt", "step-00000060.pt"]


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    settings = Optimization(steps=100, learning_rate=0.1)
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[2] == pytest.approx(0.1)
    assert rates[51] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0)


def test_how_a_step_is_computed_is_not_taken_from_a_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.advance([blob_batch(0)])
    state = {**trainer.state(), "step": trainer.step}
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = True  # as on a GPU
    other = make_trainer(tmp_path)
    other.load(state)
    assert not any(group["fused"] for group in other.optimizer.param_groups)
    other.advance([blob_batch(1)])


def test_the_average_forgets_its_random_start() -> None:
    network = torch.nn.Linear(1, 1)
    average = MovingAverage(network, 0.99)
    for _ in range(40):
        torch.nn.init.constant_(network.weight, 1.0)
        average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(1.0, abs=1e-4)


def test_the_average_is_that_of_weights_and_statistics() -> None:
    """Each tensor for itself, by the formula; counts are those of the network."""
    network = torch.nn.BatchNorm1d(3)
    average = MovingAverage(network, 0.7)
    expected: dict[str, torch.Tensor] = {}
    for step in range(30):
        network(torch.randn(8, 3) * step)
        torch.nn.init.normal_(network.weight)
        average.update_parameters(network)
        decay = min(0.7, (1 + step) / (10 + step)) if step else 0.0
        for name, now in network.state_dict().items():
            expected[name] = now.clone() if step == 0 else decay * expected[name] + (1 - decay) * now
    found = average.module.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        torch.testing.assert_close(found[name], expected[name])
    assert int(found["num_batches_tracked"]) == 30
    assert int(average.n_averaged) == 30


def test_a_loss_that_is_not_finite_names_term_and_cases(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = blob_batch(0)
    before = {name: tensor.clone() for name, tensor in trainer.task.network.state_dict().items()}
    batch.images[0, 0, 0, 0, 0] = math.nan
    with pytest.raises(NotFinite, match=r"term 'dice' is nan for cases a, b"):
        trainer.advance([batch])
    after = trainer.task.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_gradient_that_is_not_finite_leaves_the_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    weight = next(trainer.task.network.parameters())
    weight.register_hook(lambda gradient: gradient * math.inf)
    before = weight.detach().clone()
    with pytest.raises(NotFinite, match=r"the norm of the gradient is (nan|inf) for cases a, b"):
        trainer.advance([blob_batch(0)])
    assert torch.equal(before, weight)
    assert trainer.step == 0


def test_what_a_loss_draws_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    drawn: dict[tuple[int, int], float] = {}

    class Draws(Task):
        def forward(self, batch: Batch, progress: float, autocast: torch.autocast) -> dict[str, torch.Tensor]:
            drawn[trainer.seed, trainer.step] = float(torch.rand(()))
            return super().forward(batch, progress, autocast)

    for seed, step in ((1, 0), (1, 1), (2, 0)):
        trainer = make_trainer(tmp_path)
        trainer.task.__class__, trainer.seed, trainer.step = Draws, seed, step
        trainer.advance([blob_batch(0)])
    first = dict(drawn)
    torch.rand(7)
    trainer.seed, trainer.step = 1, 1
    trainer.advance([blob_batch(0)])
    assert drawn == first
    assert len(set(drawn.values())) == 3


def test_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "digest")
    for step in (1, 2, 3):
        checkpoints.save(step, {"value": torch.tensor(step)})
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == ["step-00000002.pt", "step-00000003.pt"]
    (tmp_path / "c/step-00000003.pt").write_bytes(b"torn")
    last = checkpoints.load_last()
    assert last is not None
    assert last["step"] == 2
    with pytest.raises(SettingsError, match="other settings or other data"):
        Checkpoints(tmp_path / "c", "another").load_last()


@pytest.mark.parametrize(
    ("fault", "told"), [(OSError(28, "No space left on device"), InputError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_fault_while_writing_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, told: type[BaseException]
) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "digest")
    checkpoints.save(1, {})

    def full(*_: object) -> None:
        raise fault

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(told, match="previous one is untouched" if told is InputError else None):
        checkpoints.save(2, {})
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001.pt"]


def test_chance_is_what_shuffled_voxels_reach() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((40, 40, 40)) < 0.2).astype(np.uint8)
    prediction = (rng.random(truth.shape) < 0.4).astype(np.uint8)
    case = PreparedCase("a", np.zeros((1, *truth.shape), np.float32), truth, (1.0, 1.0, 1.0), {})
    measured = 2 * (truth & prediction).sum() / (truth.sum() + prediction.sum())
    assert chance_dice(case, prediction, 2) == [pytest.approx(measured, abs=0.01)]


def fit(trainer: Trainer, log: RunLog) -> list[Event]:
    told: list[Event] = []
    trainer.fit(log, told.append, lambda: False)
    return told


def poisoned(steps: set[int]) -> Callable[[int, int], Crops]:
    def read(step: int, number: int) -> Crops:
        batch = blob_batch(step)
        if step in steps:
            batch.images[0, 0, 0, 0, 0] = math.nan
        return Crops(batch)

    return read


def test_a_poisoned_step_stops_the_run_and_names_its_cases(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=6, validate_every=2)
    trainer.feed = replace(trainer.feed, read=poisoned({4}))
    with pytest.raises(InputError, match=r"Step 5: the loss term 'dice' is nan for cases a, b; .* is untouched"):
        fit(trainer, RunLog(tmp_path))
    assert trainer.checkpoints.load_last()["step"] == 4


def test_poisoned_steps_are_skipped_and_listed_where_that_is_asked_for(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, not_finite="skip")
    trainer.feed = replace(trainer.feed, read=poisoned({3, 4, 59}))
    log = RunLog(tmp_path)
    told = fit(trainer, log)
    assert trainer.step == 60
    listed = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["cases"]) for entry in listed] == [(4, ["a", "b"]), (5, ["a", "b"]), (60, ["a", "b"])]
    assert any("the loss term 'dice' is nan for cases a, b; skipped" in event.text for event in told)
    assert log.rows[-1]["dice/mean"] > 0.9
    assert all(torch.isfinite(tensor).all() for tensor in trainer.task.network.state_dict().values())


def test_poison_without_end_is_no_accident(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=60, not_finite="skip")
    trainer.feed = replace(trainer.feed, read=poisoned(set(range(60))))
    with pytest.raises(InputError, match=f"Step {MOST_SKIPPED + 1}: "):
        fit(trainer, RunLog(tmp_path))


def test_accumulated_batches_are_one_larger_batch(tmp_path: Path) -> None:
    """With InstanceNorm and a mean over voxels, halves add up to the whole exactly."""
    norms = []
    for accumulate in (1, 2):
        trainer = make_trainer(tmp_path, norm="instance", steps=1, accumulate=accumulate)
        whole = blob_batch(0)
        halves = [
            Crops(Batch(whole.images[n : n + 1], whole.labels[n : n + 1], whole.cases[n : n + 1])) for n in range(2)
        ]
        read = partial(lambda parts, step, number: parts[number], halves if accumulate == 2 else [Crops(whole)])
        trainer.feed = replace(trainer.feed, read=read)
        trainer.task._loss = LossSettings(overlap_weight=0.0)
        log = RunLog(tmp_path)
        fit(trainer, log)
        norms.append((log.rows[-1]["gradient/total"], log.rows[-1]["loss/ce"]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=50, validate_every=1, patience=3)
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.9])
    trainer.feed = replace(trainer.feed, validate=lambda network: Validation(np.array([[next(scores)]]), ("a",)))
    fit(trainer, RunLog(tmp_path))
    assert trainer.step == 5
    assert trainer.checkpoints.load_best()["step"] == 2
    resumed = make_trainer(tmp_path, steps=50, validate_every=1, patience=3)
    resumed.load(resumed.checkpoints.load_last())
    assert resumed.finished


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.05), ("poly", 0.1 * 0.5**0.9), ("constant", 0.1)])
def test_each_schedule_falls_as_it_says(schedule: str, half: float) -> None:
    settings = Optimization.model_validate({"steps": 100, "learning_rate": 0.1, "schedule": schedule, "warm_up": 0.1})
    assert [learning_rate(step, settings) for step in (0, 4, 9, 55)] == pytest.approx([0.01, 0.05, 0.1, half])


def test_a_clock_that_jumps_changes_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(0, -(10**9), -(10**6)))
    monkeypatch.setattr("time.time", lambda: float(next(jumps)))
    log = RunLog(tmp_path)
    fit(make_trainer(tmp_path, steps=4, validate_every=2), log)
    assert all(0 < row["seconds_per_step"] < 60 and 0 <= row["loader_wait"] <= 1 for row in log.rows)


def test_half_precision_on_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'fp16', which is for CUDA devices, and this run is on cpu; use 'auto'"):
        make_trainer(tmp_path, precision="fp16")
