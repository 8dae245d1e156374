"""A GPU's memory is used up to the limit that was given, and what does not fit is made smaller."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mskd.inference import Engine

MB = 1 << 20
FIXED = 64 * MB
"""What CUDA's libraries take by themselves (workspaces): no plan can make that less."""


@pytest.mark.parametrize("limit", [200 * MB, 500 * MB, 2000 * MB])
def test_the_peak_stays_below_the_limit(student: Any, phantom: Any, limit: int) -> None:
    result = Engine(student, "cuda", memory=limit).run(phantom)
    assert result.report["device"].startswith("cuda")
    assert torch.cuda.max_memory_allocated() <= limit + FIXED


def test_less_memory_means_smaller_windows_and_says_so(student: Any, phantom: Any) -> None:
    roomy = Engine(student, "cuda", memory=8000 * MB).run(phantom)
    tight = Engine(student, "cuda", memory=200 * MB).run(phantom)
    assert tight.report["memory_steps"]
    assert np.prod(tight.report["plan"]["window"]) < np.prod(roomy.report["plan"]["window"])
    assert np.mean(tight.labels.array == roomy.labels.array) > 0.5  # random features see the windows' borders


def test_a_device_that_others_filled_makes_the_windows_smaller(student: Any, phantom: Any) -> None:
    engine = Engine(student, "cuda")
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - 400 * MB), dtype=torch.uint8, device="cuda")
    result = engine.run(phantom)
    del taken
    assert result.report["memory_steps"]
    assert np.any(result.labels.array)


def test_nothing_is_kept_from_run_to_run(student: Any, phantom: Any) -> None:
    engine = Engine(student, "cuda")
    engine.run(phantom)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        engine.run(phantom)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before + MB
