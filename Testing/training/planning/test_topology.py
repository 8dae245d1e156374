"""Strides and kernels for unequal spacings, and patches in the proportions of the data."""

from __future__ import annotations

from math import prod

import pytest

from mskd.networks import build_network
from mskd.spec import NetworkSpec
from mskd.training.planning.topology import choose_patch, make_topology


def test_thick_slices_are_neither_halved_nor_looked_across_at_first() -> None:
    found = make_topology((7.7, 1.25, 1.25), (16, 128, 128), 5)
    assert found.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert found.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert found.divisor == (4, 16, 16)


@pytest.mark.parametrize(
    ("spacing", "patch", "strides"),
    [
        ((1.0, 1.0, 1.0), (40, 56, 40), [(1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)]),
        ((1.0, 1.0), (32, 32), [(1, 1), (2, 2), (2, 2), (2, 2)]),
        ((1.0, 1.0, 1.0), (1, 64, 16), [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 1)]),
        ((1.0, 1.0, 1.0), (5, 3, 1), [(1, 1, 1), (2, 2, 1)]),
        ((1.0, 4.0, 1.0), (64, 64, 64), [(1, 1, 1), (2, 1, 2), (2, 1, 2), (2, 2, 2), (2, 2, 2)]),
    ],
)
def test_axes_are_halved_while_voxels_are_left(spacing: tuple, patch: tuple, strides: list) -> None:
    found = make_topology(spacing, patch, 5)
    assert list(found.strides) == strides
    dim = len(patch)
    arguments = {"channels": [2] * len(strides), "strides": found.strides, "kernels": found.kernels}
    build_network(NetworkSpec(name="light_unet", arguments={"dim": dim, "in_channels": 1, "classes": 2, **arguments}))


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        ((1.0, 1.0, 1.0), (36, 51, 35)),
        ((7.7, 1.25, 1.25), (36, 256, 256)),
        ((2.5, 3.9, 3.9), (119, 120, 72)),
        ((0.8, 0.8, 0.8), (600, 512, 512)),
        ((1.0, 1.0, 1.0), (1, 7, 300)),
        ((1.25, 1.25), (256, 256)),
        ((0.5, 2.0), (900, 40)),
    ],
)
@pytest.mark.parametrize("most", [1000, 100_000, 1_000_000])
def test_a_patch_is_as_large_as_allowed_and_whole(spacing: tuple, shape: tuple, most: int) -> None:
    patch = choose_patch(spacing, shape, 5, lambda size, topology: prod(size) <= most)
    topology = make_topology(spacing, patch, 5)
    assert all(side % step == 0 for side, step in zip(patch, topology.divisor, strict=True))
    assert all(side < whole + step for side, whole, step in zip(patch, shape, topology.divisor, strict=True))
    smallest = all(side <= 16 for side in patch)
    assert prod(patch) <= most or smallest
    # A step more along each axis would be too much, unless all is shown, or the cube that it starts from (256^3).
    shown = [side / whole for side, whole in zip(patch, shape, strict=True)]
    grown = prod(side + step for side, step in zip(patch, topology.divisor, strict=True))
    assert min(shown) > 0.8 or grown > most


def test_a_patch_has_the_proportions_of_the_data() -> None:
    patch = choose_patch((1.0, 1.0, 1.0), (200, 400, 100), 4, lambda size, topology: prod(size) <= 500_000)
    assert patch[1] / patch[0] == pytest.approx(2, rel=0.3)
    assert patch[0] / patch[2] == pytest.approx(2, rel=0.3)
