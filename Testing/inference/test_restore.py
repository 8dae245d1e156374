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
from mskd.inference import Region, make_grid
from mskd.inference import restore as module
from mskd.inference.neighbours import Tiles, make_axis, make_runs
from mskd.inference.restore import restore
from mskd.inference.uncertainty import Confidence
from mskd.spec import Normalization

TURNED = (0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


@pytest.fixture(params=[500, 1 << 20], ids=str)
def portions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some blocks along borders at a time, or all."""
    monkeypatch.setitem(module.BORDER_VALUES, "cpu", request.param)


def grid_for(spacing: tuple[float, ...], direction: tuple[float, ...] = TURNED) -> object:
    spec = SimpleNamespace(spacing=spacing, orientation="RAS", normalization=Normalization(name="none"))
    return make_grid(Geometry((15, 18, 21), (2.0, 1.5, 1.0), (1.0, 2.0, 3.0), direction), spec)


@pytest.mark.usefixtures("portions")
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


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (None, None, None), (2.0, None, 0.7)])
@pytest.mark.parametrize("pieces", [1, 4])
def test_coarse_logits_reach_beyond_the_last_voxel(spacing: tuple, pieces: int) -> None:
    grid, step = grid_for(spacing), (2, 3, 4)
    shape = grid.geometry.shape
    logits = torch.randn(
        4, *(-(-side // one) for side, one in zip(shape, step, strict=True)), generator=torch.Generator().manual_seed(0)
    )
    labels = restore(logits.chunk(pieces, dim=1), grid, step=step, on_slab=lambda *count: None, cancelled=never)
    full = logits.double().numpy()
    for axis, (side, one, target) in enumerate(zip(shape, step, grid.crop_shape, strict=True), start=1):
        places = (np.arange(target) + 0.5) * side / one / target - 0.5
        full = np.apply_along_axis(lambda row, at=places: np.interp(at, np.arange(len(row)), row), axis, full)
    expected = on_source(torch.from_numpy(full.argmax(0)), grid)
    assert (labels.array == expected).mean() > 0.9999


def smooth_logits(grid: object, classes: int = 4) -> torch.Tensor:
    """Of large uniform patches with soft borders, as a network gives them."""
    noise = torch.randn(1, classes, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    return 20 * F.interpolate(noise, size=grid.geometry.shape, mode="trilinear")[0]


def plain(logits: torch.Tensor, grid: object) -> torch.Tensor:
    """All logits on the crop, the simple way."""
    return F.interpolate(logits[None].float(), size=grid.crop_shape, mode="trilinear", align_corners=False)[0]


@pytest.mark.parametrize("labels", [2, 3])
def test_labels_do_not_depend_on_slabs_or_on_what_else_is_asked(labels: int) -> None:
    """A label that is second everywhere could win between voxels; it is looked for near one where it wins alone.

    Around a voxel there are two others, or three.
    """
    grid = grid_for((1.0, 0.5, 0.7))
    logits = torch.zeros(labels + 1, *grid.geometry.shape)
    x = torch.arange(logits.shape[3])
    first = (x + torch.arange(logits.shape[2])[:, None]) % 3 if labels == 3 else x.expand(logits.shape[2], -1) % 2
    for label in range(labels):
        logits[label, :, first == label] = 10.0
    logits[labels] = 9.0
    logits[labels, 0, 0, 0] = 11.0
    whole, pieces = run(logits, grid), restore(logits.chunk(7, dim=1), grid, on_slab=_ignore, cancelled=never).array
    np.testing.assert_array_equal(pieces, whole)
    entropy = np.zeros(grid.source.shape, dtype=np.uint8)
    np.testing.assert_array_equal(run(logits, grid, entropy=entropy), whole)
    found = grid.view(whole) == labels
    assert found[0].any()
    assert not found[-1].any()


@pytest.mark.parametrize("above", [False, True])
def test_a_label_is_looked_for_on_both_sides_of_its_slices(above: bool) -> None:
    grid = grid_for((2.0, 2.0, 3.0))
    logits = torch.full((3, *grid.geometry.shape), -10.0)
    half, middle = logits.shape[3] // 2, logits.shape[1] // 2
    logits[0, :, :, :half] = logits[1, :, :, half:] = 10.0
    logits[2, middle:] = 30.0
    logits = logits if above else logits.flip(1)
    labels = run(logits, grid)
    np.testing.assert_array_equal(labels, on_source(plain(logits, grid).argmax(0), grid))
    assert set(np.unique(labels)) == {0, 1, 2}


def _ignore(done: int, total: int) -> None:
    pass


def on_source(values: torch.Tensor, grid: object) -> np.ndarray:
    array = np.zeros(grid.source.shape, dtype=np.uint8)
    grid.view(array)[:] = values.numpy()
    return array


def run(logits: torch.Tensor, grid: object, **more: object) -> np.ndarray:
    return restore([logits], grid, on_slab=lambda done, total: None, cancelled=never, **more).array


@pytest.mark.parametrize("spacing", [(1.0, 0.5, 0.7), (3.0, 2.0, 2.5), (2.0, None, 0.7)])
def test_few_voxels_are_interpolated_and_none_is_wrong(monkeypatch: pytest.MonkeyPatch, spacing: tuple) -> None:
    grid = grid_for(spacing)
    logits = smooth_logits(grid)
    settled, compared, computed = [], [], []

    def counting(self: Tiles, corners: torch.Tensor) -> torch.Tensor:
        places = self.places().flatten()
        (settled if corners.dim() == 2 else compared).extend(places.unique().tolist())
        computed.append(len(places))
        return interpolate(self, corners)

    interpolate = Tiles.interpolate
    monkeypatch.setattr(Tiles, "interpolate", counting)
    labels = run(logits, grid)
    expected = on_source(plain(logits, grid).argmax(0), grid)
    assert (labels == expected).mean() > 0.9999
    assert len(np.unique(labels)) > 2
    assert len(settled) == len(set(settled)) < 0.8 * labels.size
    assert len(compared) < 0.6 * len(settled)
    assert sum(computed) < 1.5 * len(settled + compared)


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("spacing", [(1.0, 0.5, 0.7), (None, None, None)])
def test_memory_layout_and_half_precision_do_not_matter(spacing: tuple) -> None:
    grid = grid_for(spacing)
    logits = smooth_logits(grid)
    expected = run(logits, grid)
    last = logits.movedim(0, -1).contiguous().movedim(-1, 0)
    np.testing.assert_array_equal(run(last, grid), expected)
    for half in (torch.float16, torch.bfloat16):
        np.testing.assert_array_equal(run(logits.to(half), grid), run(logits.to(half).float(), grid))


@pytest.mark.usefixtures("portions")
def test_a_label_with_the_largest_value(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = grid_for((1.0, 0.5, 0.7))
    logits = torch.full((256, *grid.geometry.shape), -50.0)
    logits[[0, 255]] = smooth_logits(grid, 2)
    expected = on_source(plain(logits, grid).argmax(0), grid)
    assert (run(logits, grid) == expected).mean() > 0.9999


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("spacing", [(1.0, 0.5, 0.7), (3.0, 2.0, 2.5), (None, None, None)])
@pytest.mark.parametrize("slab", [1, 1 << 22])
def test_entropy_is_near_the_plain_way(monkeypatch: pytest.MonkeyPatch, spacing: tuple, slab: int) -> None:
    monkeypatch.setitem(module.SLAB_VOXELS, "cpu", slab)
    grid = grid_for(spacing)
    logits = smooth_logits(grid) / 4
    entropy = np.zeros(grid.source.shape, dtype=np.uint8)
    run(logits, grid, entropy=entropy)
    probabilities = plain(logits, grid).double().softmax(0)
    nats = torch.special.entr(probabilities).sum(0)
    expected = on_source((100 * nats / np.log(4)).round().to(torch.uint8), grid)
    off = np.abs(entropy.astype(int) - expected)
    most, usual = {(1.0, 0.5, 0.7): (8, 1.0), (3.0, 2.0, 2.5): (30, 3.0), (None, None, None): (1, 0.001)}[spacing]
    assert off.max() <= most
    assert off.mean() < usual
    assert (entropy == 0).any()
    assert entropy.max() > 30


def test_entropy_is_seen_between_two_sure_voxels() -> None:
    """Where the largest logit changes, although no voxel of the network is in doubt."""
    grid = grid_for((2.0, 1.5, 4.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    assert grid.crop_shape[2] >= 3 * grid.geometry.shape[2]
    logits = torch.full((4, *grid.geometry.shape), -20.0)
    logits[2:] = -80.0  # no share anywhere, and 100 % is that of four labels all the same
    logits[1, :, :, 2:] = 20.0
    logits[0, :, :, :2] = 20.0
    entropy = np.zeros(grid.source.shape, dtype=np.uint8)
    labels = run(logits, grid, entropy=entropy)
    probabilities = plain(logits, grid).double().softmax(0)
    expected = on_source((100 * torch.special.entr(probabilities).sum(0) / np.log(4)).round().to(torch.uint8), grid)
    assert expected.max() > 0
    np.testing.assert_array_equal(entropy, expected)
    assert set(np.unique(labels)) == {0, 1}


@pytest.mark.parametrize("spacing", [(1.0, 0.5, 0.7), (3.0, 2.0, 2.5)])
@pytest.mark.parametrize("slab", [1, 1 << 22])
def test_confidence_counts_every_prepared_voxel_once(
    monkeypatch: pytest.MonkeyPatch, spacing: tuple, slab: int
) -> None:
    monkeypatch.setitem(module.SLAB_VOXELS, "cpu", slab)
    grid = grid_for(spacing)
    logits = smooth_logits(grid)
    logits[3] = -1000.0
    confidence = Confidence(4)
    run(logits, grid, confidence=confidence)
    best, winner = logits.softmax(0).max(0)
    for label in (1, 2):
        assert confidence.mean(label) == pytest.approx(float(best[winner == label].mean()), abs=1e-6)
    assert confidence.mean(3) is None


def test_outside_the_region_nothing_is_left() -> None:
    grid = grid_for((1.0, 0.5, 0.7))
    logits = torch.full((2, *grid.geometry.shape), -5.0)
    logits[1] = 0.5
    x, y, z = grid.source.point((7.0, 9.0, 10.0))
    region = Region((-x - 5, -y - 5, z - 5), (-x + 5, -y + 5, z + 5))
    entropy = np.zeros(grid.source.shape, dtype=np.uint8)
    labels = run(logits, grid, region=region, entropy=entropy)
    np.testing.assert_array_equal(labels, region.mask(grid.source))
    assert not entropy[labels == 0].any()


def test_progress_and_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.SLAB_VOXELS, "cpu", 1)
    grid = grid_for((None, None, None))
    logits = torch.zeros(2, *grid.geometry.shape)
    told: list[tuple[int, int]] = []
    restore([logits], grid, on_slab=lambda done, total: told.append((done, total)), cancelled=never)
    assert told[-1] == (grid.crop_shape[0], grid.crop_shape[0])
    with pytest.raises(Cancelled):
        restore([logits], grid, on_slab=lambda done, total: None, cancelled=lambda: True)


def test_the_first_of_equal_logits_wins() -> None:
    grid = grid_for((None, None, None))
    logits = torch.randint(3, (5, *grid.geometry.shape), generator=torch.Generator().manual_seed(0)).float()
    np.testing.assert_array_equal(run(logits, grid), on_source(logits.max(0).indices, grid))


@pytest.mark.usefixtures("portions")
def test_the_first_of_equal_logits_wins_along_borders() -> None:
    """Twins that are alike everywhere, but in one voxel far off each, where the second of them wins."""
    grid = grid_for((1.0, 0.5, 0.7))
    logits = smooth_logits(grid)
    logits[:2], logits[2:] = logits[1], logits[3]
    logits[1, 0, 0, 0] = logits[3, 0, 0, -1] = 100.0
    labels = grid.view(run(logits, grid))
    assert set(np.unique(labels[8:])) == {0, 2}
    assert {1, 3} <= set(np.unique(labels[:4]))


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize(("slices", "thickness"), [(1, 50.0), (2, 15.0)])
def test_few_slices_for_many(slices: int, thickness: float) -> None:
    grid = make_grid(
        Geometry((60, 20, 24), (0.5, 1.0, 1.0)),
        SimpleNamespace(spacing=(thickness, 2.0, 2.0), orientation="LPS", normalization=Normalization(name="none")),
    )
    assert grid.geometry.shape[0] == slices
    logits = smooth_logits(grid)
    labels = run(logits, grid)
    assert (labels == plain(logits, grid).argmax(0).numpy()).mean() > 0.9999
    assert len(np.unique(labels)) > 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("every", [1, 2])
def test_logits_that_are_no_numbers_give_labels_that_exist(value: float, every: int) -> None:
    grid = grid_for((1.0, 0.5, 0.7))
    logits = smooth_logits(grid)
    logits[:, ::every] = value
    assert set(np.unique(run(logits, grid, confidence=Confidence(4)))) <= {0, 1, 2, 3}


def test_one_infinite_logit_where_the_first_label_wins_nowhere() -> None:
    """Its voxel has the label 0 on processors whose infinity less infinity has a sign; that is no fault."""
    grid = grid_for((4.0, 3.0, 4.0))
    logits = torch.zeros(3, *grid.geometry.shape)
    logits[0], logits[1] = -5.0, 5.0
    logits[1, 1, 1, 1] = np.inf
    labels = run(logits, grid, confidence=Confidence(3))
    assert set(np.unique(labels)) <= {0, 1}
    assert (labels == 1).mean() > 0.9


def test_a_label_with_the_largest_value_where_nothing_is_interpolated() -> None:
    grid = grid_for((None, None, None))
    logits = torch.full((256, *grid.geometry.shape), -50.0)
    logits[[0, 255]] = smooth_logits(grid, 2)
    np.testing.assert_array_equal(run(logits, grid), on_source(logits.max(0).indices, grid))


@pytest.mark.parametrize("sides", [(10, 15), (23, 30), (9, 300), (300, 9), (7, 7), (1, 12), (92, 275)], ids=str)
def test_runs_hold_every_voxel_within_one_cell(sides: tuple[int, int]) -> None:
    axis = make_axis(*sides, torch.device("cpu"))
    runs = make_runs(axis)
    assert sorted(set(runs.target.flatten().tolist())) == list(range(sides[1]))
    assert (axis.lower[runs.target] == runs.cell).all()
    assert (axis.share[runs.target] == runs.share).all()
    assert runs.target.numel() <= 1.6 * sides[1]
