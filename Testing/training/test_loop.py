"""The loop: it learns, its schedule is what it says, faults in the loss stop it, checkpoints survive."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mskd.data.patches import Batch
from mskd.errors import InputError, SettingsError
from mskd.events import silent
from mskd.networks import build_network
from mskd.spec import NetworkSpec
from mskd.training.checkpoint import Checkpoints
from mskd.training.log import RunLog
from mskd.training.loop import Trainer, learning_rate, moving_average
from mskd.training.settings import Optimization
from mskd.training.task import Task
from mskd.training.validation import Validation, chance_dice


def blob_batch(step: int) -> Batch:
    labels = torch.zeros(2, 16, 16, 16, dtype=torch.long)
    labels[:, 3:9, 3:9, 3:9] = 1
    labels[:, 9:14, 6:12, 5:11] = 2
    noise = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    return Batch(labels[:, None].float() + 0.3 * noise, labels, ("a", "b"))


def make_trainer(folder: Path, dim: int = 3, **changes: object) -> Trainer:
    arguments = {"dim": dim, "in_channels": 1, "classes": 3, "channels": [8, 16]}
    torch.manual_seed(0)
    network = build_network(NetworkSpec(name="light_unet", arguments=arguments))
    settings = Optimization.model_validate(
        {"steps": 60, "learning_rate": 0.01, "ema": 0.5, "validate_every": 0, "precision": "fp32", **changes}
    )
    average = moving_average(network, settings.ema)

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
    return Trainer(
        Task(network), average, settings, device, blob_batch, validate, Checkpoints(folder / "checkpoints", "digest")
    )


def test_one_batch_is_learnt_by_heart(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    log = RunLog(tmp_path)
    trainer.fit(log, silent, lambda: False)
    row = log.rows[-1]
    assert trainer.checkpoints.load_best()["dice"] > 0.99
    assert row["step"] == 60
    assert {"loss/segmentation", "dice/mean", "dice/a", "dice/b", "learning_rate"} <= row.keys()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.pt", "step-00000060.pt"]


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    settings = Optimization(steps=100, learning_rate=0.1)
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[2] == pytest.approx(0.1)
    assert rates[51] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0)


def test_the_average_forgets_its_random_start() -> None:
    network = torch.nn.Linear(1, 1)
    average = moving_average(network, 0.99)
    for _ in range(40):
        torch.nn.init.constant_(network.weight, 1.0)
        average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(1.0, abs=1e-4)


def test_a_loss_that_is_not_finite_names_term_and_cases(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = blob_batch(0)
    before = {name: tensor.clone() for name, tensor in trainer.task.network.state_dict().items()}
    batch.images[0, 0, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match=r"term 'segmentation' is nan for cases a, b"):
        trainer.advance(batch)
    after = trainer.task.network.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if "running" not in n and "tracked" not in n)


def test_a_gradient_that_is_not_finite_leaves_the_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    weight = next(trainer.task.network.parameters())
    weight.register_hook(lambda gradient: gradient * math.inf)
    before = weight.detach().clone()
    with pytest.raises(InputError, match=r"the norm of the gradient is (nan|inf) for cases a, b"):
        trainer.advance(blob_batch(0))
    assert torch.equal(before, weight)
    assert trainer.step == 0


def test_what_a_loss_draws_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    drawn: dict[tuple[int, int], float] = {}

    class Draws(Task):
        def terms(self, batch: Batch, progress: float, autocast: torch.autocast) -> dict[str, torch.Tensor]:
            drawn[trainer.seed, trainer.step] = float(torch.rand(()))
            return super().terms(batch, progress, autocast)

    for seed, step in ((1, 0), (1, 1), (2, 0)):
        trainer = make_trainer(tmp_path)
        trainer.task.__class__, trainer.seed, trainer.step = Draws, seed, step
        trainer.advance(blob_batch(0))
    first = dict(drawn)
    torch.rand(7)
    trainer.seed, trainer.step = 1, 1
    trainer.advance(blob_batch(0))
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
    case = type("Case", (), {"labels": truth})()
    measured = 2 * (truth & prediction).sum() / (truth.sum() + prediction.sum())
    assert chance_dice([case], [prediction], 2) == pytest.approx(measured, abs=0.01)
