"""Windows cover the volume, blend without a trace, and ask for cancel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mskd.errors import Cancelled
from mskd.events import never
from mskd.inference.windows import fitted, half, importance, make_plan, predict, stream

side = st.integers(1, 40)


def pointwise(image: torch.Tensor) -> torch.Tensor:
    return torch.cat([image, image.sin()], dim=1)


@given(shape=st.tuples(side, side, side), window=st.tuples(side, side, side), dim=st.sampled_from([2, 3]))
@settings(max_examples=80, deadline=None)
def test_every_voxel_is_covered(shape: tuple, window: tuple, dim: int) -> None:
    plan = make_plan(shape, window, half(window, dim))
    seen = torch.zeros(shape)
    for start in plan.starts:
        box = tuple(slice(low, low + step) for low, step in zip(start, plan.window, strict=True))
        assert seen[box].shape == plan.window
        seen[box] += 1
    assert seen.min() >= 1
    assert importance(plan, torch.device("cpu")).min() > 0
    if dim == 2 and shape[0] % plan.window[0] == 0 and plan.window[1:] == shape[1:]:
        assert seen.max() == 1


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("window", [(4, 5, 6), (7, 11, 13), (1, 3, 20), (100, 100, 100)])
def test_windows_equal_the_whole_for_a_pointwise_network(dim: int, window: tuple[int, int, int], batch: int) -> None:
    volume = torch.randn(1, 7, 11, 13, generator=torch.Generator().manual_seed(0))
    plan = make_plan((7, 11, 13), window, half(window, dim), batch)
    logits = predict(pointwise, volume, plan, dim, on_window=lambda done, total: None, cancelled=never)
    torch.testing.assert_close(logits, pointwise(volume[None])[0])


def test_a_network_that_sees_its_border_is_blended_smoothly() -> None:
    volume = torch.ones(1, 8, 8, 64)

    def positional(image: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(-1, 1, image.shape[-1]).expand(image.shape)
        return torch.cat([ramp, -ramp], dim=1)

    logits = predict(
        positional, volume, make_plan((8, 8, 64), (8, 8, 16), (4, 4, 8)), 3, on_window=_ignore, cancelled=never
    )
    # Between two windows whose answers jump by 2, no step of the blend is larger than half of that.
    assert logits[0, 0, 0, 8:-8].diff().abs().max() < 0.5


def test_progress_is_counted() -> None:
    told: list[tuple[int, int]] = []
    plan = make_plan((8, 8, 16), (8, 8, 8), (4, 4, 4))
    volume = torch.zeros(1, 8, 8, 16)
    predict(pointwise, volume, plan, 3, on_window=lambda *count: told.append(count), cancelled=never)
    assert told == [(index, 3) for index in range(4)]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_cancel_is_asked_before_each_window(after: int) -> None:
    ran: list[int] = []

    def forward(image: torch.Tensor) -> torch.Tensor:
        ran.append(1)
        return pointwise(image)

    cancelled: Callable[[], bool] = lambda: len(ran) >= after  # noqa: E731
    plan = make_plan((8, 8, 16), (8, 8, 8), (4, 4, 4))
    with pytest.raises(Cancelled):
        predict(forward, torch.zeros(1, 8, 8, 16), plan, 3, on_window=_ignore, cancelled=cancelled)
    assert len(ran) == after


def test_slabs_come_as_soon_as_no_window_touches_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mskd.inference.windows.SLAB_SLICES", 5)
    plan = make_plan((16, 6, 6), (8, 6, 6), (2, 0, 0))
    volume = torch.randn(1, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    done: list[int] = []
    slabs = []
    for slab in stream(pointwise, volume, plan, 3, on_window=lambda count, _: done.append(count), cancelled=never):
        slabs.append((slab, done[-1]))
    assert [(slab.shape[1], seen) for slab, seen in slabs] == [(4, 1), (4, 2), (5, 3), (3, 3)]
    torch.testing.assert_close(torch.cat([slab for slab, _ in slabs], dim=1), pointwise(volume[None])[0])


@pytest.mark.parametrize("window", [(8, 8, 8), (5, 9, 100), (100, 100, 100)])
def test_windows_of_coarse_logits_equal_the_whole(window: tuple[int, int, int]) -> None:
    step = (1, 2, 3)
    plan = make_plan((7, 21, 25), window, (2, 3, 3), step=step)
    assert plan.shape == (7, 22, 27)
    assert all(side % one == 0 for start in plan.starts for side, one in zip(start, step, strict=True))
    volume = fitted(torch.randn(1, 7, 21, 25, generator=torch.Generator().manual_seed(0)), plan)
    assert torch.equal(volume[..., -1], volume[..., -3])

    def pooled(image: torch.Tensor) -> torch.Tensor:
        return pointwise(torch.nn.functional.avg_pool3d(image, step))

    logits = predict(pooled, volume, plan, 3, on_window=_ignore, cancelled=never)
    torch.testing.assert_close(logits, pooled(volume[None])[0])


@pytest.mark.parametrize("batch", [1, 4])
def test_air_is_seen_once(batch: int) -> None:
    plan = make_plan((24, 24, 24), (8, 8, 8), (0, 0, 0), batch)
    volume = torch.full((1, 24, 24, 24), -1.0)
    volume[0, 9, 9, 9] = 1.0
    seen: list[int] = []

    def forward(image: torch.Tensor) -> torch.Tensor:
        seen.append(len(image))
        return pointwise(image)

    logits = torch.cat(list(stream(forward, volume, plan, 3, air=-1.0, on_window=_ignore, cancelled=never)), dim=1)
    assert sum(seen) == 2
    torch.testing.assert_close(logits, pointwise(volume[None])[0])


def _ignore(done: int, total: int) -> None:
    pass
