"""Geometry: rigid in mm, enlarging where it says so, and the interpolation that an independent one gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from mskd.data import warp as warp_module
from mskd.data.spatial import Placement, cut, place, random_displacement, random_matrix
from mskd.data.warp import warp


def moved(
    image: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    placement: Placement,
    patch: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the module makes of a whole volume."""
    low, high = placement.low, placement.high
    found = warp(cut(image, low, high), cut(labels, low, high), cut(logits, low, high), placement, patch)
    return tuple(part.numpy() for part in found)  # type: ignore[return-value,union-attr]


def reference(
    volume: np.ndarray, centre: np.ndarray, matrix: np.ndarray, shift: np.ndarray, patch: tuple[int, ...]
) -> np.ndarray:
    """SciPy's linear interpolation in float64, on a volume with a rim of zeros, which it then repeats."""
    axes = [np.arange(side) - (side - 1) / 2 for side in patch]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"))
    where = np.tensordot(matrix, offsets, 1) + centre.reshape(-1, *(1,) * len(patch)) + shift + 1
    return map_coordinates(np.pad(volume.astype(float), 1), where, order=1, mode="nearest")


@pytest.mark.parametrize("on_volumes", [False, True])
@pytest.mark.parametrize(
    ("size", "patch", "spacing"),
    [
        ((30, 31, 29), (16, 18, 15), (1.0, 1.0, 1.0)),
        ((10, 40, 40), (7, 33, 21), (5.0, 1.0, 1.2)),
        ((20, 9, 12), (24, 20, 7), (1.0, 2.0, 1.0)),  # larger than the volume
        ((1, 25, 30), (3, 16, 16), (1.0, 1.0, 1.0)),
        ((40, 41), (32, 27), (1.0, 1.5)),
    ],
)
def test_the_warp_is_linear_interpolation(
    size: tuple[int, ...],
    patch: tuple[int, ...],
    spacing: tuple[float, ...],
    on_volumes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if on_volumes:  # the way other devices than a CPU take
        monkeypatch.setattr(warp_module, "as_pictures", lambda source: False)
    rng = np.random.default_rng(0)
    dim = len(size)
    image = rng.standard_normal((6, *size)).astype(np.float32)
    labels = rng.integers(0, 4, [-(-side // 4) for side in size]).astype(np.uint8)
    for axis in range(dim):
        labels = labels.repeat(4, axis)
    labels = np.where(labels == 3, 255, labels)[tuple(slice(side) for side in size)]
    logits = rng.standard_normal((4, *size)).astype(np.float16)
    for turn in range(4):
        centre = np.array([rng.uniform(0, side - 1) for side in size])
        matrix = random_matrix(rng, spacing, 40, (0.7, 1.4))
        thick = spacing[0] == 5
        centre[0] = round(centre[0]) if thick else centre[0]  # slices stay whole
        control = random_displacement(rng, spacing, 2.0) if turn % 2 else None
        flips = tuple(-1 - axis for axis in range(dim) if rng.random() < 0.5)
        placement = place(centre, patch, size, matrix, control, flips)
        found = moved(image, labels, logits, placement, patch)
        shift = np.zeros((dim, *patch))
        if control is not None:
            nodes = np.meshgrid(*(np.linspace(0, 5, side) for side in patch), indexing="ij")
            shift = np.stack([map_coordinates(axis, nodes, order=1) for axis in control.astype(float)])
        values = [0, 1, 2, 255]
        wanted = [
            np.flip(reference(volume, centre, matrix, shift, patch), flips)
            for volume in [*image, *logits, *(labels == value for value in values)]
        ]
        assert np.allclose(found[0], wanted[:6], atol=5e-4)
        assert np.allclose(found[2], wanted[6:10], atol=5e-4)
        shares = np.stack(wanted[10:])
        shares[0] += 1 - shares.sum(0)  # outside is background
        first, second = np.sort(shares, 0)[[-1, -2]]
        clear = first - second > 1e-3
        assert clear.mean() > 0.9
        assert np.array_equal(np.array(values)[shares.argmax(0)][clear], found[1][clear])


def test_rotation_is_rigid_in_millimetres() -> None:
    spacing = (3.0, 1.0, 2.0)
    for seed in range(10):
        matrix = random_matrix(np.random.default_rng(seed), spacing, 30, (1.0, 1.0))
        physical = np.diag(spacing) @ matrix @ np.linalg.inv(np.diag(spacing))
        assert np.allclose(physical @ physical.T, np.eye(3), atol=1e-12)
        assert np.isclose(np.linalg.det(physical), 1)
        assert abs(matrix[0, 1]) > 0


def test_thick_slices_are_neither_rotated_nor_scaled() -> None:
    matrix = random_matrix(np.random.default_rng(0), (5.0, 1.0, 1.0), 180, (0.7, 1.4))
    assert np.array_equal(matrix[0], [1, 0, 0])
    assert np.array_equal(matrix[:, 0], [1, 0, 0])
    assert not np.isclose(np.linalg.det(matrix), 1)


def test_zoom_above_one_enlarges() -> None:
    image = np.zeros((1, 21, 21, 21), np.float32)
    image[0, 8:13, 8:13, 8:13] = 1
    matrix = random_matrix(np.random.default_rng(0), (1, 1, 1), 0, (1.5, 1.5))
    placement = place((10.0,) * 3, (21,) * 3, (21,) * 3, matrix, None, ())
    found, _, _ = warp(cut(image, placement.low, placement.high), None, None, placement, (21,) * 3)
    assert found.sum() / image.sum() == pytest.approx(1.5**3, rel=0.15)


def test_a_box_outside_the_volume_is_padding() -> None:
    image = torch.arange(24, dtype=torch.float32).reshape(1, 4, 6).numpy()
    found = cut(image, (-1, 4), (3, 8), outside=-5)
    assert torch.equal(found[0, 0], torch.full((4,), -5.0))
    assert found[0, 1].tolist() == [4.0, 5.0, -5.0, -5.0]
