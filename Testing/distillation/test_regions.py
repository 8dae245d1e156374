"""Regions on a feature grid."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mskd.distillation.nodes import Pairs, region_members, shuffle_nodes
from mskd.distillation.regions import Regions, area_pool_labels, background_ring, flat_cells, pool_to


@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 12)])
def test_area_pooling_is_the_adaptive_average_of_one_hot_labels(shape):
    labels = torch.randint(0, 4, (3, *shape))
    grid = [side // 2 for side in shape]
    onehot = F.one_hot(labels, 4).movedim(-1, 1).float()
    pool = F.adaptive_avg_pool2d if len(shape) == 2 else F.adaptive_avg_pool3d
    expected = pool(onehot, tuple(grid)).flatten(2)
    torch.testing.assert_close(area_pool_labels(labels, 4, grid, [2.0] * len(shape)), expected)


def test_area_pooling_at_a_ragged_end_averages_the_voxels_that_exist():
    labels = torch.tensor([[[0, 0, 1, 1, 1]]])
    pooled = area_pool_labels(labels, 2, (1, 3), (1.0, 2.0))
    assert pooled[0].tolist() == [[1, 0, 0], [0, 1, 1]]


def test_a_tiny_organ_survives_pooling():
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    labels[0, 3, 3, 3] = 1
    assert area_pool_labels(labels, 2, (2, 2, 2), (4.0, 4.0, 4.0))[0, 1].sum() == pytest.approx(1 / 64)


@pytest.mark.parametrize("ignore", [-1, 255, 3])
def test_ignored_voxels_belong_to_no_region(ignore):
    labels = torch.tensor([[[0, ignore], [1, 1]]])
    assert area_pool_labels(labels, 3, (1, 1), (2.0, 2.0))[0, :, 0].tolist() == [0.25, 0.5, 0.0]


def test_pooling_by_whole_steps_equals_the_cells_of_the_labels():
    values = torch.randn(2, 3, 7, 9)
    pooled = pool_to(values, (4, 3), (2, 3))
    cell = flat_cells((7, 9), (4, 3), (2.0, 3.0), values.device)
    for index in range(12):
        expected = values.flatten(2)[..., cell == index].mean(-1)
        torch.testing.assert_close(pooled.flatten(2)[..., index], expected)


def test_pooling_by_broken_steps_reaches_the_grid():
    assert pool_to(torch.randn(1, 2, 10, 10), (4, 4), (2.5, 2.5)).shape == (1, 2, 4, 4)


def test_an_absent_class_is_masked_out():
    area = torch.tensor([[[0.9, 0.6], [0.1, 0.4], [0.0, 0.0]]])
    regions = Regions.of(area, (1, 2), 0.5)
    assert regions.valid.tolist() == [[True, True, False]]
    assert regions.has_foreground.tolist() == [True]
    assert Regions.of(area, (1, 2), 0.6).has_foreground.tolist() == [False]


def test_the_ring_is_the_background_within_two_voxels():
    labels = torch.zeros(1, 1, 9, dtype=torch.long)
    labels[..., 4] = 1
    area = area_pool_labels(labels, 2, (1, 9), (1.0, 1.0))
    assert background_ring(area, (1, 9))[0].tolist() == [0, 0, 1, 1, 0, 1, 1, 0, 0]


def test_the_ring_is_a_cube_that_the_grid_cuts_off():
    labels = torch.zeros(1, 5, 5, 2, dtype=torch.long)
    labels[0, 0, 0, 0] = 1
    area = area_pool_labels(labels, 2, (5, 5, 2), (1.0,) * 3)
    ring = background_ring(area, (5, 5, 2)).view(5, 5, 2)
    expected = torch.zeros(5, 5, 2)
    expected[:3, :3] = 1
    expected[0, 0, 0] = 0
    assert ring.equal(expected)


def test_without_foreground_there_is_no_ring():
    area = area_pool_labels(torch.zeros(1, 4, 4, 4, dtype=torch.long), 3, (4, 4, 4), (1.0,) * 3)
    assert background_ring(area, (4, 4, 4)).sum() == 0


def test_nodes_use_the_core_and_fall_back_to_the_soft_mask():
    area = torch.tensor([[[1.0, 0.5, 0.4, 0.0], [0.0, 0.4, 0.4, 0.4]]])
    members = region_members(Pairs.of(area), torch.ones(1, 4), (1, 4), 1.0, split=False)
    means = members.means(torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]))
    torch.testing.assert_close(means[0, :, 0] + 2.5, torch.tensor([1.5, 3.0]))


def test_parts_are_cut_at_the_centroid_and_the_centroid_goes_to_the_lower_part():
    area = torch.ones(1, 1, 5)
    members = region_members(Pairs.of(area), torch.ones(1, 5), (1, 5), 1.0, split=True)
    means = members.means(torch.arange(5.0)[None, None, None])[0, :, 0] + 2
    assert members.valid.tolist() == [[True, True, False, False]]
    assert means[:2].tolist() == [1.0, 3.5]


def test_a_node_of_which_the_filter_keeps_nothing_is_absent():
    members = region_members(Pairs.of(torch.ones(1, 1, 4)), torch.zeros(1, 4), (2, 2), 1.0, split=False)
    assert not members.valid.any()


def test_shuffling_moves_every_valid_node_and_no_other():
    torch.manual_seed(0)
    nodes = torch.arange(12.0).view(2, 6, 1)
    valid = torch.tensor([[True, True, False, True, False, False], [True] * 6])
    for _ in range(20):
        moved = shuffle_nodes(nodes, valid)
        assert (moved[valid] != nodes[valid]).all()
        assert (moved[~valid] == nodes[~valid]).all()
        assert moved.flatten().sort().values.equal(nodes.flatten())


def test_shuffling_one_node_or_none_changes_nothing():
    nodes, valid = torch.randn(2, 3, 2), torch.tensor([[False, True, False], [False] * 3])
    assert shuffle_nodes(nodes, valid).equal(nodes)
