"""The switches of the methods: each part and each control does something."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import make_batch, mapped, measure

from mskd.distillation.saliency import channel_filter, spatial_filter

dims = pytest.mark.parametrize("dim", [2, 3])


def differs(first: torch.Tensor, second: torch.Tensor) -> bool:
    return bool((first - second).abs() > 1e-3 * second.abs())


@dims
@pytest.mark.parametrize("method", ["ffd", "rgd"])
@pytest.mark.parametrize("kind", ["random", "inverted", "none"])
def test_controls_of_the_filter_change_the_loss(method, kind, dim):
    batch = make_batch(dim)
    assert differs(measure(method, batch, {"filter": kind}), measure(method, batch))


@dims
@pytest.mark.parametrize(
    ("method", "switch"),
    [
        ("kd", {"temperature": 1.0}),
        ("ffd", {"theta": 0.5}),
        ("ffd", {"gamma": 5.0}),
        ("ffd", {"correctness": False}),
        ("ffd", {"region_normalisation": False}),
        ("ffd", {"background": 0.0}),
        ("rgd", {"nodes": ["class"]}),
        ("rgd", {"nodes": ["class", "split", "patch"]}),
        ("rgd", {"background": "all"}),
        ("rgd", {"background": "none"}),
        ("rgd", {"ln": 0.0}),
        ("rgd", {"le": 0.0}),
        ("rgd", {"lh": 0.0}),
        ("rgd", {"hops": 1}),
        ("rgd", {"temperature": 1.0}),
        ("rgd", {"shuffled": True}),
    ],
)
def test_every_switch_changes_the_loss(method, switch, dim):
    batch = make_batch(dim)
    assert differs(measure(method, batch, switch), measure(method, batch))


@dims
@pytest.mark.parametrize("method", ["ffd", "rgd"])
def test_region_modes_differ(method, dim):
    batch = make_batch(dim)
    mask, saliency, hybrid = (measure(method, batch, regions=mode) for mode in ("mask", "saliency", "hybrid"))
    assert differs(mask, hybrid)
    assert differs(saliency, hybrid)


@dims
def test_shuffled_nodes_are_not_zero_even_for_a_perfect_student(dim):
    batch = make_batch(dim)
    assert measure("rgd", replace(batch, student=batch.teacher), {"shuffled": True}) > 0.1


@dims
@pytest.mark.parametrize("background", ["ring", "all", "none"])
@pytest.mark.parametrize("nodes", [["class"], ["split"], ["patch"], ["class", "split", "patch"]])
def test_rgd_is_zero_without_foreground(nodes, background, dim):
    batch = make_batch(dim)
    empty = replace(batch, labels=torch.zeros_like(batch.labels))
    assert measure("rgd", empty, {"nodes": nodes, "background": background}) == 0


@dims
def test_an_absent_class_is_in_no_normaliser(dim):
    """FFD over organs alone: where one organ is absent, the other one's loss is the whole loss."""
    batch = make_batch(dim)
    one = replace(batch, labels=batch.labels.clamp(max=1))
    wide = mapped(one.teacher, lambda t: t)
    wide = replace(wide, logits=torch.cat([wide.logits, torch.full_like(wide.logits[:, :1], -60.0)], dim=1))
    terms = {"background": 0.0}
    torch.testing.assert_close(measure("ffd", one, terms), measure("ffd", replace(one, teacher=wide), terms))


@dims
def test_a_teacher_that_is_wrong_everywhere_is_silent(dim):
    batch = make_batch(dim)
    wrong = 50.0 * torch.nn.functional.one_hot((batch.labels + 1) % 3, 3).movedim(-1, 1).double()
    assert measure("ffd", replace(batch, teacher=replace(batch.teacher, logits=wrong))) < 1e-12


@dims
def test_an_unlabelled_item_takes_the_teachers_prediction(dim):
    batch = make_batch(dim)
    predicted = batch.teacher.logits.argmax(1)
    for method, term in (("ffd", {"correctness": False}), ("rgd", {})):
        expected = measure(method, replace(batch, labels=predicted), term)
        torch.testing.assert_close(measure(method, replace(batch, labels=None), term), expected)
        mixed = predicted.clone()
        mixed[1] = 255
        torch.testing.assert_close(measure(method, replace(batch, labels=mixed), term), expected)


def test_the_channel_filter_is_standardised_and_needs_no_equal_channels():
    saliency = channel_filter(torch.randn(2, 7, 500, dtype=torch.float64) ** 2)
    torch.testing.assert_close(saliency.mean(-1), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(saliency.std(-1, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-5, rtol=0)


def test_the_channel_filter_follows_the_stronger_channel():
    strong, weak = torch.tensor([0.0, 10.0, 0.0, 0.0]), torch.tensor([0.1, 0.0, 0.0, 0.0])
    assert channel_filter(torch.stack([strong, weak])[None]).argmax() == 1


@pytest.mark.parametrize("kind", ["teacher", "random", "inverted", "none"])
def test_the_spatial_filter_has_mean_one(kind):
    weight = spatial_filter(torch.randn(3, 400), theta=0.6, gamma=0.6, kind=kind)
    torch.testing.assert_close(weight.mean(-1), torch.ones(3))


def test_the_controls_keep_what_they_say():
    saliency = torch.randn(2, 400)
    weights = {
        kind: spatial_filter(saliency, theta=0.6, gamma=0.6, kind=kind) for kind in ("teacher", "random", "inverted")
    }
    kept = {kind: weight > 0 for kind, weight in weights.items()}
    assert (kept["teacher"] ^ kept["inverted"]).all()
    assert kept["random"].sum(-1).equal(kept["teacher"].sum(-1))
    assert not kept["random"].equal(kept["teacher"])
    torch.testing.assert_close(weights["random"].sort().values, weights["teacher"].sort().values)
    assert (spatial_filter(saliency, theta=0.5, gamma=0.6, kind="teacher") > 0).all()
