"""Changes of intensity: in range, with the statistics that they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from mskd.data.intensity import CHANGES, apply_change, blur, brightness, contrast, draw_change, gamma, low_resolution
from mskd.data.intensity import noise as add_noise


def smooth(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return torch.from_numpy(((values - values.mean()) / values.std()).astype(np.float32))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("shape", [(2, 12, 10), (1, 8, 10, 9), (3, 1, 10, 9)])
def test_changes_touch_the_drawn_channels_and_stay_finite(name: str, shape: tuple[int, ...]) -> None:
    rng, dim = np.random.default_rng(1), len(shape) - 1
    changed = 0
    for _ in range(8):
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        before = image.clone()
        numbers = draw_change(CHANGES[name], rng, len(image), range(dim), dim)
        apply_change(CHANGES[name], image, numbers)
        assert torch.isfinite(image).all()
        for channel, old, row in zip(image, before, numbers, strict=True):
            assert torch.equal(channel, old) or not np.isnan(row[0])
            changed += not torch.equal(channel, old)
        flat = torch.zeros(shape)
        apply_change(CHANGES[name], flat, numbers)
        assert torch.isfinite(flat).all()
    assert changed >= 2


def test_noise_has_the_drawn_spread_and_no_bias() -> None:
    drawn = [draw_change(CHANGES["noise"], np.random.default_rng(seed), 1, (), 3)[0] for seed in range(200)]
    assert max(row[0] for row in drawn) ** 2 == pytest.approx(0.1, rel=0.05)
    assert np.mean([row[0] ** 2 for row in drawn]) == pytest.approx(0.05, rel=0.15)
    channel = torch.zeros(40, 40, 40)
    add_noise(channel, [0.3, 5])
    assert float(channel.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(channel.mean())) < 0.005


@pytest.mark.parametrize("sigmas", [(0.5, 0.7, 1.0), (0.0, 0.9, 0.9)])
def test_blur_is_a_gaussian_mirrored_at_the_rim(sigmas: tuple[float, ...]) -> None:
    channel = smooth((14, 15, 11))
    wanted = gaussian_filter(channel.double().numpy(), sigmas, mode="mirror", radius=2)
    blur(channel, sigmas)
    assert np.allclose(channel, wanted, atol=1e-5)


def test_brightness_and_contrast() -> None:
    channel = smooth((14, 15, 11))
    before = channel.clone()
    brightness(channel, [1.2])
    assert torch.allclose(channel, 1.2 * before)
    for factor in (0.8, 1.25):
        channel = before + 3
        contrast(channel, [factor])
        wanted = ((before - before.mean()) * factor + before.mean() + 3).clamp(before.min() + 3, before.max() + 3)
        assert torch.allclose(channel, wanted, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.7, 1.5, -0.7, -1.5])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_gamma_keeps_mean_spread_and_order(exponent: float, offset: float) -> None:
    before = smooth((20, 21, 22)) + offset
    channel = before.clone()
    gamma(channel, [exponent])
    assert float(channel.mean()) == pytest.approx(float(before.mean()), abs=1e-3)
    assert float(channel.std()) == pytest.approx(float(before.std()), rel=1e-3)
    order = before.flatten().argsort()
    assert bool((channel.flatten()[order].diff() >= -1e-3).all())
    source = before if exponent > 0 else -before
    bent = ((source - source.min()) / (source.max() - source.min())) ** abs(exponent)
    bent = (bent - bent.mean()) / bent.std() * source.std() + source.mean()
    assert torch.allclose(channel, bent if exponent > 0 else -bent, atol=2e-3)


def test_low_resolution_leaves_out_axes_of_zoom_one() -> None:
    channel = smooth((9, 20, 22))
    before = channel.clone()
    low_resolution(channel, [1.0, 0.5, 0.5])
    small = before[:, 1::2, 1::2] if torch.equal(channel[:, 0, 0], before[:, 1, 1]) else before[:, ::2, ::2]
    assert torch.allclose(channel[:, 0, 0], small[:, 0, 0])
    assert channel.std() < before.std()
    assert np.corrcoef(channel.flatten(), before.flatten())[0, 1] > 0.7


def test_each_channel_draws_its_own_numbers() -> None:
    rng = np.random.default_rng(0)
    rows = draw_change(CHANGES["gamma"], rng, 400, (), 3)[:, 0]
    assert len(set(rows.tolist())) == 400
    assert 0.7 <= rows.min() < 0.72
    assert 1.4 < rows.max() <= 1.5
    assert 0.4 < (rows < 1).mean() < 0.6
    taking_part = ~np.isnan(draw_change(CHANGES["blur"], rng, 400, (0, 1, 2), 3)[:, 0])
    assert 0.4 < taking_part.mean() < 0.6
