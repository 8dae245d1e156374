"""The planner: the whole where it fits, else the cheapest windows that do, and never more than it was given."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskd.inference.plan import MOST_BATCHED, Estimate, Planner
from mskd.inference.windows import make_plan
from mskd.package.weights import check_network
from mskd.spec import NetworkSpec
from mskd.spec.trainingdata import TrainingData

CHEST = (183, 267, 267)


@pytest.fixture(scope="module")
def planners(threshold_package: Callable[..., Any]) -> dict[int, Planner]:
    """By dimension, for patches of 64."""
    return {dim: planner(threshold_package(dim=dim, patch=(64,) * dim)) for dim in (2, 3)}


def planner(package: Any) -> Planner:
    return Planner(package.manifest, check_network(package.manifest, source="test"))


def best(planner: Planner, shape: tuple[int, int, int], **limits: Any) -> Estimate:
    """The cheapest plan, which must exist."""
    found = planner.cheapest(shape, **limits)
    assert found is not None
    return found


def test_the_whole_where_it_fits(planners: dict[int, Planner]) -> None:
    whole = best(planners[3], CHEST)
    assert whole.plan.whole
    assert best(planners[3], CHEST, budget=whole.bytes) == whole
    assert not best(planners[3], CHEST, budget=whole.bytes - 1).plan.whole


def test_what_ran_out_of_memory_is_not_tried_again(planners: dict[int, Planner]) -> None:
    largest: float = 1 << 40
    for _ in range(4):
        found = best(planners[3], CHEST, largest=largest)
        assert prod(found.plan.window) <= largest
        largest = prod(found.plan.window) // 2


@pytest.mark.parametrize("dim", [2, 3])
def test_less_memory_never_costs_less_and_is_obeyed(planners: dict[int, Planner], dim: int) -> None:
    budget, cost, tried = best(planners[dim], CHEST).bytes, 0, 0
    while (found := planners[dim].cheapest(CHEST, budget)) is not None:
        assert found.bytes <= budget
        if min(found.plan.window[-2:]) >= 64:
            assert found.plan.voxels >= 0.9 * cost  # an outline may miss the cheapest by a little
            cost = found.plan.voxels
        budget, tried = budget // 2, tried + 1
    assert tried > 1


def test_windows_are_no_smaller_than_the_patch_while_that_fits(planners: dict[int, Planner]) -> None:
    patches = make_plan((64, 300, 300), (64, 64, 64), (16, 16, 16))
    found = best(planners[3], (64, 300, 300), budget=planners[3].need(patches))
    assert min(found.plan.window) >= 64


def test_neighbours_share_a_quarter_of_the_patch(planners: dict[int, Planner]) -> None:
    found = best(planners[3], (64, 64, 300), budget=1.5 * best(planners[3], (64, 64, 160)).bytes)
    starts = [start[2] for start in found.plan.starts]
    gaps = [after - before for before, after in pairwise(starts)]
    assert gaps
    assert max(gaps) <= found.plan.window[2] - 16


def test_slices_of_a_2d_network_do_not_overlap(planners: dict[int, Planner]) -> None:
    plan = best(planners[2], CHEST).plan
    assert plan.window == (16, *CHEST[1:])
    assert len(plan.starts) == -(-CHEST[0] // 16)


def test_a_gpu_takes_several_windows_at_once(planners: dict[int, Planner]) -> None:
    budget = best(planners[3], CHEST).bytes // 3
    one, many = (best(planners[3], CHEST, budget=budget, batched=batched) for batched in (False, True))
    assert one.plan.batch == 1
    assert 1 <= many.plan.batch <= MOST_BATCHED
    assert many.bytes <= budget


def test_a_network_that_depends_on_its_window_sees_patches(threshold_package: Callable[..., Any]) -> None:
    arguments = {**threshold_package().manifest.network.arguments, "norm": "instance"}
    package = threshold_package(network=NetworkSpec(name="light_unet", arguments=arguments), patch=(32, 32, 32))
    assert best(planner(package), (100, 100, 20)).plan.window == (32, 32, 20)


def test_a_patch_that_covers_the_training_images_is_not_exceeded(threshold_package: Callable[..., Any]) -> None:
    facts = {
        "cases": 9,
        "spacing": [{"low": 1.0, "high": 1.0}] * 3,
        "extent": [{"low": side, "high": side} for side in (300.0, 30.0, 36.0)],
        "tilt": 0.0,
        "mirrored": [False],
        "intensities": [[{"low": 0.0, "high": 1.0}] * 3],
    }
    known = TrainingData.model_validate_json(json.dumps(facts))
    package = threshold_package(patch=(32, 32, 32), training_data=known)
    plan = best(planner(package), (100, 100, 100)).plan
    assert plan.window == (100, 32, 32)
    assert {start[1] for start in plan.starts} >= {0, 68}
    assert max(after - before for before, after in pairwise(sorted({start[1] for start in plan.starts}))) <= 16
    assert best(planner(package), (100, 20, 24)).plan.whole


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("shape", [(37, 101, 66), (5, 7, 200)])
def test_windows_of_a_network_whose_stem_strides_begin_and_end_between_its_logits(
    threshold_package: Callable[..., Any], dim: int, shape: tuple[int, int, int]
) -> None:
    arguments = {**threshold_package(dim=dim).manifest.network.arguments, "strides": [[3] * dim, [2] * dim]}
    network = NetworkSpec(name="light_unet", arguments=arguments)
    own = planner(threshold_package(dim=dim, network=network, patch=(25,) * dim))
    whole, step = best(own, shape), (1,) * (3 - dim) + (3,) * dim
    windows = set()
    for share in (1, 0.5, 0.25, 0.1):
        found = own.cheapest(shape, share * whole.bytes)
        if found is None:
            break
        plan = found.plan
        windows.add(plan.window)
        assert (plan.step, found.bytes <= share * whole.bytes) == (step, True)
        assert plan.shape == tuple(-(-side // one) * one for side, one in zip(shape, step, strict=True))
        for numbers in (plan.window, *plan.starts):
            assert all(number % one == 0 for number, one in zip(numbers, step, strict=True))
        ends = [max(start[axis] for start in plan.starts) + plan.window[axis] for axis in range(3)]
        assert tuple(ends) == plan.shape
    assert len(windows) > 1


@given(shape=st.tuples(*[st.integers(1, 300)] * 3), share=st.floats(0.001, 1.2), dim=st.sampled_from([2, 3]))
@settings(max_examples=20, deadline=None)
def test_any_shape_within_any_budget(planners: dict[int, Planner], shape: Any, share: float, dim: int) -> None:
    budget = int(share * best(planners[dim], shape).bytes)
    found = planners[dim].cheapest(shape, budget)
    if found is not None:
        assert found.bytes <= budget
        assert found.plan.shape == shape
        assert all(side <= full for side, full in zip(found.plan.window, shape, strict=True))
    elif share >= 1:
        pytest.fail("the best fits")


@pytest.mark.parametrize(("strides", "whole"), [((), False), ([[2, 2, 2]] * 3, True)])
def test_what_is_comfortable_counts_the_finest_grid_of_the_network(
    threshold_package: Callable[..., Any], strides: Any, whole: bool
) -> None:
    arguments = {"dim": 3, "in_channels": 1, "classes": 2, "channels": [4, 6, 8], "strides": strides}
    manifest = threshold_package(patch=(32, 32, 32)).manifest.model_copy(
        update={"network": NetworkSpec(name="light_unet", arguments=arguments)}
    )
    found = best(Planner(manifest, check_network(manifest, source="test")), (96, 96, 96), comfortable=96**3 // 8)
    assert found.plan.whole == whole
