"""The depthwise convolution: PyTorch's numbers, gradients and keys, folded and exported like any other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mskd.inference.backends.torch_eager import fold_batch_norm
from mskd.networks.depthwise import DepthwiseConv3d

KERNELS = [(3, 3, 3), (1, 3, 3), (5, 3, 1)]


def pair(kernel: tuple[int, ...], stride: int = 1) -> tuple[nn.Conv3d, nn.Conv3d]:
    torch.manual_seed(0)
    padding = tuple(side // 2 for side in kernel)
    ours = DepthwiseConv3d(4, 4, kernel, stride, padding, groups=4, bias=False)
    theirs = nn.Conv3d(4, 4, kernel, stride, padding, groups=4, bias=False)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def gradients(convolution: nn.Conv3d, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    image = image.clone(memory_format=torch.preserve_format).requires_grad_()
    result = convolution(image)
    wanted = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    (result.float() * wanted).sum().backward()
    assert image.grad is not None
    assert convolution.weight.grad is not None
    return result.detach(), image.grad, convolution.weight.grad


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("kernel", "stride"), [*((kernel, 1) for kernel in KERNELS), ((3, 3, 3), 2)])
@pytest.mark.parametrize("size", [(7, 6, 9), (1, 5, 4)])
def test_value_and_gradients_are_pytorchs(
    kernel: tuple[int, ...], stride: int, size: tuple[int, ...], layout: torch.memory_format
) -> None:
    image = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(2)).contiguous(memory_format=layout)
    ours, theirs = pair(kernel, stride)
    for mine, other in zip(gradients(ours, image), gradients(theirs, image), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_the_functions() -> None:
    ours = pair((3, 3, 3))[0].double()
    image = torch.randn(1, 4, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, w: torch.func.functional_call(ours, {"weight": w}, x), (image, ours.weight))


def test_the_own_backward_pass_is_taken_in_training_and_nowhere_else() -> None:
    ours, _ = pair((3, 3, 3))
    image = torch.randn(1, 4, 5, 5, 5)
    assert "Depthwise" in type(ours(image).grad_fn).__name__
    with torch.no_grad():
        assert ours(image).grad_fn is None
    ours.requires_grad_(False)
    assert "Depthwise" not in type(ours(image.requires_grad_()).grad_fn).__name__


def test_under_autocast_it_computes_in_its_number_format() -> None:
    ours, theirs = pair((3, 3, 3))
    image = torch.randn(1, 4, 6, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        mine, other = gradients(ours, image), gradients(theirs, image)
    assert mine[0].dtype == torch.bfloat16
    assert mine[2].dtype == torch.float32
    for first, second in zip(mine, other, strict=True):
        torch.testing.assert_close(first.float(), second.float(), rtol=0.05, atol=0.2)


def test_batch_norm_folds_into_it() -> None:
    ours, _ = pair((3, 3, 3))
    norm = nn.BatchNorm3d(4)
    norm.running_mean.normal_()
    block = nn.Sequential(ours, norm).eval()
    image = torch.randn(1, 4, 5, 5, 5)
    with torch.no_grad():
        wanted = block(image)
        fold_batch_norm(block)
        torch.testing.assert_close(block(image), wanted, rtol=1e-4, atol=1e-5)
    assert isinstance(block[1], nn.Identity)
