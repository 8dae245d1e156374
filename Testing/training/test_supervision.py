"""Deep supervision: which stages answer, that they learn, and that the network keeps no trace of it."""

from __future__ import annotations

import pytest
import torch

from mskd.networks import SegmentationNetwork, build_network
from mskd.spec import NetworkSpec
from mskd.training.losses import segmentation_terms
from mskd.training.settings import LossSettings
from mskd.training.supervision import DeepSupervision


def make(dim: int, side: int = 16) -> tuple[SegmentationNetwork, DeepSupervision, torch.Tensor]:
    torch.manual_seed(0)
    arguments = {"dim": dim, "in_channels": 1, "classes": 3, "channels": [4, 6, 8, 10]}
    network = build_network(NetworkSpec(name="light_unet", arguments=arguments))
    image = torch.randn(2, 1, *(side,) * dim)
    return network, DeepSupervision(network, 3, image[:1], LossSettings()), image


@pytest.mark.parametrize("dim", [2, 3])
def test_every_coarser_stage_answers_and_each_weighs_half_of_the_one_before(dim: int) -> None:
    network, supervision, image = make(dim)
    logits, coarse = supervision.collect(network, image)
    assert logits.shape == (2, 3, *(16,) * dim)
    assert [tuple(stage.shape) for stage in coarse] == [(2, 3, *(side,) * dim) for side in (8, 4)]
    labels = torch.zeros(2, *(16,) * dim, dtype=torch.long)
    labels[:, 4:12] = 1
    labels[:, 12:] = -1
    wanted = 0.0
    for stage, weight in zip(coarse, (0.5, 0.25), strict=True):
        step = 16 // stage.shape[-1]
        near = labels[(slice(None), *(slice(step // 2, None, step),) * dim)]
        wanted += weight * sum(
            float(term.detach()) for term in segmentation_terms(stage, near, LossSettings()).values()
        )
    assert float(supervision.terms(coarse, labels)["supervision"].detach()) == pytest.approx(wanted, rel=1e-5)


def test_the_stages_learn_and_the_network_keeps_its_keys() -> None:
    network, supervision, image = make(3)
    keys = set(network.state_dict())
    _, coarse = supervision.collect(network, image)
    supervision.terms(coarse, torch.ones(2, 16, 16, 16, dtype=torch.long))["supervision"].backward()
    assert all(float(head.weight.grad.abs().sum()) > 0 for head in supervision.heads)
    assert float(network.decoder[0][0][0].weight.grad.abs().sum()) > 0
    assert network.head.weight.grad is None
    assert set(network.state_dict()) == keys
    assert not any(module._forward_hooks for module in network.modules())


def test_stages_too_coarse_for_the_patch_are_left_out() -> None:
    _, supervision, image = make(2, side=8)
    assert len(supervision.heads) == 1
    with_one_stage = {"dim": 2, "in_channels": 1, "classes": 3, "channels": [4, 6]}
    network = build_network(NetworkSpec(name="light_unet", arguments=with_one_stage))
    supervision = DeepSupervision(network, 3, image[:1], LossSettings())
    assert supervision.terms((), torch.zeros(2, 8, 8, dtype=torch.long)) == {}
