"""The teacher's frozen copy says what the teacher says."""

from __future__ import annotations

import pytest
import torch
from batches import small_network
from torch import nn

from mskd.distillation.frozen import frozen
from mskd.distillation.taps import Taps


def with_history(network: nn.Module, dim: int) -> nn.Module:
    """The network with statistics and scales that a fold could get wrong."""
    network.train()
    for _ in range(2):
        network(3.0 + 2.0 * torch.randn(2, 1, *[16] * dim))
    for name, weight in network.named_parameters():
        if weight.ndim == 1:
            nn.init.uniform_(weight, 0.5, 1.5) if name.endswith("weight") else nn.init.uniform_(weight, -0.5, 0.5)
    return network


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_copy_gives_the_same_logits_and_features(dim, norm):
    teacher = with_history(small_network("residual_unet", dim, norm=norm), dim)
    paths, image = ("decoder.1", "encoder.2"), torch.randn(2, 1, *[16] * dim)
    copied, layout = frozen(teacher, paths, dim)
    with torch.no_grad():
        expected = Taps(teacher.eval(), paths).collect(teacher, image)
        found = Taps(copied, paths).collect(copied, image.contiguous(memory_format=layout))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    norms = [module for module in copied.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert not norms
    assert layout == (
        torch.contiguous_format if norm == "instance" else [torch.channels_last, torch.channels_last_3d][dim - 2]
    )


@pytest.mark.parametrize("path", ["decoder.1.0", "encoder.1.0.second.1"])
def test_a_tapped_convolution_or_norm_keeps_its_meaning(path):
    teacher = with_history(small_network("residual_unet", 2), 2)
    image = torch.randn(2, 1, 16, 16)
    copied, _ = frozen(teacher, (path,), 2)
    with torch.no_grad():
        _, (expected,) = Taps(teacher.eval(), (path,)).collect(teacher, image)
        _, (found,) = Taps(copied, (path,)).collect(copied, image)
    torch.testing.assert_close(found, expected)


def test_a_norm_without_statistics_of_its_own_is_kept():
    teacher = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU())
    copied, _ = frozen(teacher, ("2",), 2)
    image = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(copied(image), teacher(image))


def test_the_teacher_itself_is_left_as_it_was():
    teacher = small_network("residual_unet", 3).train()
    keys = list(teacher.state_dict())
    frozen(teacher, ("decoder.1",), 3)
    assert list(teacher.state_dict()) == keys
    assert all(module.training for module in teacher.modules())
    assert all(weight.requires_grad for weight in teacher.parameters())
