"""What travels to other processes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mskd.batch import EngineOptions, Task
from mskd.errors import PackageError
from mskd.inference import Region


def test_a_task_travels(folder: Any, model: Any) -> None:
    region = Region((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))
    task = Task(EngineOptions(str(model.path), "cpu", memory=1 << 30), model.fingerprint, folder.results, region)
    assert pickle.loads(pickle.dumps(task)) == task


def test_another_model_is_refused(folder: Any, model: Any) -> None:
    task = Task(EngineOptions(str(model.path), "cpu"), model.fingerprint, folder.results)
    assert task.build_engine().package.fingerprint == model.fingerprint
    with pytest.raises(PackageError, match="not the model that the run began with"):
        replace(task, fingerprint="0" * 64).build_engine()


def test_an_option_added_later_may_alter_labels() -> None:
    @dataclass(frozen=True)
    class Extended(EngineOptions):
        tiles: str = "small"

    usual = EngineOptions("model", "cpu", memory=5).altering()
    assert usual == {"backend": "auto", "precision": "auto"}
    assert Extended("model", "cpu", memory=5).altering() == {**usual, "tiles": "small"}
