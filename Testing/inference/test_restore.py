"""Restoration equals the plain way (interpolate all logits, then argmax), in pieces."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mskd.errors import Cancelled
from mskd.events import never
from mskd.image import Geometry
from mskd.inference import make_grid
from mskd.inference import restore as module
from mskd.inference.restore import restore
from mskd.spec import Normalization

TURNED = (0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def grid_for(spacing: tuple[float, ...], direction: tuple[float, ...] = TURNED) -> object:
    spec = SimpleNamespace(spacing=spacing, orientation="RAS", normalization=Normalization(name="none"))
    return make_grid(Geometry((15, 18, 21), (2.0, 1.5, 1.0), (1.0, 2.0, 3.0), direction), spec)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 2.0, 2.5), (None, None, None), (2.0, None, 0.7)])
@pytest.mark.parametrize("slab", [1, 1 << 11, 1 << 22])
@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_slabs_equal_the_plain_way(monkeypatch: pytest.MonkeyPatch, spacing: tuple, slab: int, pieces: int) -> None:
    monkeypatch.setitem(module.SLAB_VOXELS, "cpu", slab)
    grid = grid_for(spacing)
    logits = torch.randn(4, *grid.geometry.shape, generator=torch.Generator().manual_seed(0))
    slabs = logits.chunk(pieces, dim=1)
    labels = restore(slabs, grid, on_slab=lambda done, total: None, cancelled=never)
    full = F.interpolate(logits[None], size=grid.crop_shape, mode="trilinear", align_corners=False)[0]
    expected = np.zeros(grid.source.shape, dtype=np.uint8)
    grid.view(expected)[:] = full.argmax(0).numpy()
    assert (labels.array == expected).mean() > 0.9999
    assert labels.geometry == grid.source


def test_progress_and_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.SLAB_VOXELS, "cpu", 1)
    grid = grid_for((None, None, None))
    logits = torch.zeros(2, *grid.geometry.shape)
    told: list[tuple[int, int]] = []
    restore([logits], grid, on_slab=lambda done, total: told.append((done, total)), cancelled=never)
    assert told[-1] == (grid.crop_shape[0], grid.crop_shape[0])
    with pytest.raises(Cancelled):
        restore([logits], grid, on_slab=lambda done, total: None, cancelled=lambda: True)
