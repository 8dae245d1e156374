"""A teacher's logits of whole cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mskd.data.prepared import PreparedCase
from mskd.distillation import Distillation, DistillationSettings
from mskd.errors import Cancelled, InputError
from mskd.networks import SegmentationNetwork, build_network
from mskd.spec import NetworkSpec
from mskd.training.teacherlogits import TeacherLogits
from mskd.training.whole import window

CPU = torch.device("cpu")


def make_case(*shape: int) -> PreparedCase:
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    image.flags.writeable = False
    return PreparedCase("case", image, None, (1.0, 1.0, 1.0), {})


def make_network(name: str, dim: int) -> SegmentationNetwork:
    torch.manual_seed(3)
    arguments: dict[str, Any] = {"dim": dim, "in_channels": 1, "classes": 3, "channels": [4, 6]}
    network = build_network(NetworkSpec(name=name, arguments=arguments))
    nn.init.normal_(network.head.weight)
    return network.eval()


def ask(network: nn.Module, case: PreparedCase, patch: tuple[int, ...], **more: Any) -> torch.Tensor:
    return torch.from_numpy(TeacherLogits(network, "teacher", patch, CPU, **more)(case)).float()


class Symmetric(nn.Module):
    """A network that does not know one direction from another: the same weight for all neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.head = nn.Conv3d(4, 3, 1)
        self.first.weight.data[:] = self.first.weight.data[:, :, :1, :1, :1]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(image).relu())


@pytest.mark.parametrize(("dim", "shape"), [(3, (9, 11, 8)), (2, (19, 8, 12))])
def test_they_are_the_networks_logits_in_half_precision(dim: int, shape: tuple[int, ...]) -> None:
    network, case = make_network("residual_unet", dim), make_case(*shape)
    image = torch.from_numpy(np.array(case.image))
    with torch.no_grad():
        expected = network(image[None])[0] if dim == 3 else network(image.movedim(1, 0)).movedim(0, 1)
    found = TeacherLogits(network, "teacher", (8,) * dim, CPU)(case)
    assert found.dtype == np.float16
    torch.testing.assert_close(torch.from_numpy(found).float(), expected, rtol=1e-3, atol=1e-4)


def test_a_large_case_is_seen_through_windows() -> None:
    network, case, seen = Symmetric(), make_case(12, 12, 30), []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[2:])))
    assert ask(network, case, (6, 6, 6)).shape == (3, 12, 12, 30)
    assert set(seen) == {(12, 12, 12)}
    assert len(seen) == 4
    assert window(make_network("light_unet", 3), (20, 20, 20), (10, 10, 10)) == (20, 20, 20)
    assert window(nn.InstanceNorm3d(1), (20, 20, 20), (10, 10, 10)) == (10, 10, 10)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_patch_of_the_cache_teaches_what_the_teacher_teaches_online(dim: int) -> None:
    """Without augmentation, on a case that is one patch."""
    shape, patch = ((1, 8, 12), (8, 12)) if dim == 2 else ((8, 8, 12), (8, 8, 12))
    case, teacher, student = make_case(*shape), make_network("residual_unet", dim), make_network("light_unet", dim)
    image = torch.from_numpy(np.array(case.image))[None]
    cached = ask(teacher, case, patch)[None]
    if dim == 2:
        image, cached = image[:, :, 0], cached[:, :, 0]
    terms: dict[str, dict[str, Any]] = {"kd": {}}
    online = Distillation(DistillationSettings(terms=terms), student, teacher, image)
    from_cache = Distillation(DistillationSettings(terms=terms, teacher_logits="cached"), student, None, image)
    expected = online(online.student_forward(image), online.teacher_forward(image))["kd"]
    found = from_cache(from_cache.student_forward(image), from_cache.teacher_forward(image, cached))["kd"]
    assert expected > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("move", [lambda x: x.flip(-1), lambda x: x.flip(-2, -3), lambda x: x.rot90(1, (-1, -2))])
def test_moved_with_the_image_they_are_those_of_the_moved_image(move: Any) -> None:
    """As far as the teacher itself does not tell left from right; what a real one does is its own error."""
    torch.manual_seed(0)
    network, case = Symmetric(), make_case(6, 8, 8)
    moved = PreparedCase("moved", move(torch.from_numpy(np.array(case.image))).numpy(), None, case.spacing, {})
    torch.testing.assert_close(
        move(ask(network, case, (6, 8, 8))), ask(network, moved, (6, 8, 8)), rtol=2e-3, atol=1e-4
    )


def test_the_key_says_what_the_logits_depend_on() -> None:
    keys = {
        TeacherLogits(nn.Identity(), name, patch, CPU).key
        for name, patch in (("a", (8, 8)), ("b", (8, 8)), ("a", (8, 9)))
    }
    assert len(keys) == 3


def test_what_cannot_be_kept_is_refused_and_large_logits_stay_finite() -> None:
    case = make_case(4, 4, 4)
    with pytest.raises(InputError, match="Case case: the teacher's logits are not finite"):
        ask(_Constant(float("nan")), case, (4, 4, 4))
    assert ask(_Constant(1e6), case, (4, 4, 4)).isfinite().all()
    with pytest.raises(Cancelled, match="what it said of earlier cases is kept"):
        ask(_Constant(0.0), case, (4, 4, 4), cancelled=lambda: True)


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.full((len(image), 3, *image.shape[2:]), self.value)
