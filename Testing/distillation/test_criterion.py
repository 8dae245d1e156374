"""The criterion as a whole: levels, ramp, precision, and what it may not touch."""

from __future__ import annotations

import pytest
import torch
from batches import CLASSES, make_labels, small_network
from torch import nn

from mskd.distillation import METHODS, Distillation, DistillationSettings, Outputs
from mskd.errors import SettingsError
from mskd.networks import count_parameters

every = pytest.mark.parametrize(("method", "dim"), [(method, dim) for method in METHODS.names() for dim in (2, 3)])
dims = pytest.mark.parametrize("dim", [2, 3])
SIDE = 16


class Rig:
    """A student, a teacher, their criterion and a batch."""

    def __init__(self, dim: int, *, side: int = SIDE, student=None, teacher=None, **section) -> None:
        self.student = student or small_network("light_unet", dim)
        self.teacher = teacher or small_network("residual_unet", dim, channels=(5, 7, 9))
        self.image = torch.randn(2, 1, *[side] * dim, generator=torch.Generator().manual_seed(1))
        self.labels = make_labels(dim, 2, side)
        self.criterion = Distillation(DistillationSettings(**section), self.student, self.teacher, self.image)

    def outputs(self) -> tuple[Outputs, Outputs]:
        return self.criterion.student_forward(self.image), self.criterion.teacher_forward(self.image)

    def terms(self, progress: float = 1.0) -> dict[str, torch.Tensor]:
        return self.criterion(*self.outputs(), self.labels, progress)


@every
def test_gradients_reach_every_weight_before_the_taps_and_none_of_the_teacher(method, dim):
    rig = Rig(dim, terms={method: {}})
    sum(rig.terms().values()).backward()
    reached = [name for name, weight in rig.student.named_parameters() if weight.grad is not None]
    assert len(reached) >= len(list(rig.student.parameters())) - 2  # the head is after the last tap
    assert all(weight.grad is None for weight in rig.teacher.parameters())


@every
def test_no_gradient_to_teacher_outputs_that_carry_one(method, dim):
    rig = Rig(dim, terms={method: {}})
    student, teacher = rig.outputs()
    leaves = [tensor.clone().requires_grad_() for tensor in (teacher.logits, *teacher.features)]
    loss = sum(rig.criterion(student, Outputs(leaves[0], tuple(leaves[1:])), rig.labels).values())
    loss.backward()
    assert all(leaf.grad is None for leaf in leaves)


@every
def test_the_student_gains_no_parameter_no_key_and_no_hook(method, dim):
    before = small_network("light_unet", dim)
    rig = Rig(dim, terms={method: {}}, student=small_network("light_unet", dim))
    rig.terms()
    assert list(rig.student.state_dict()) == list(before.state_dict())
    assert count_parameters(rig.student) == count_parameters(before)
    assert not any(module._forward_hooks for module in rig.student.modules())


@every
def test_the_criterion_owns_projections_and_neither_network(method, dim):
    rig = Rig(dim, terms={method: {}})
    ours = {id(weight) for weight in rig.criterion.parameters()}
    for network in (rig.student, rig.teacher):
        assert ours.isdisjoint(id(weight) for weight in network.parameters())
    names = [name for name, _ in rig.criterion.named_modules()]
    assert not any("encoder" in name or "decoder" in name for name in names)
    assert set(rig.criterion.state_dict()) == {name for name, _ in rig.criterion.named_parameters()}


@every
def test_finite_and_in_float32_under_autocast(method, dim):
    rig = Rig(dim, terms={method: {}})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        student, teacher = rig.outputs()
        assert student.logits.dtype == torch.bfloat16
        (loss,) = rig.criterion(student, teacher, rig.labels).values()
    (outside,) = rig.criterion(student, teacher, rig.labels).values()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    torch.testing.assert_close(loss, outside)
    loss.backward()
    assert all(w.grad.isfinite().all() for w in rig.student.parameters() if w.grad is not None)


@every
def test_the_layout_in_memory_does_not_matter(method, dim):
    rig = Rig(dim, terms={method: {}})
    student, teacher = rig.outputs()
    form = torch.channels_last if dim == 2 else torch.channels_last_3d

    def laid_out(outputs):
        features = tuple(tensor.contiguous(memory_format=form) for tensor in outputs.features)
        return Outputs(outputs.logits.contiguous(memory_format=form), features)

    (expected,) = rig.criterion(student, teacher, rig.labels).values()
    (loss,) = rig.criterion(laid_out(student), laid_out(teacher), rig.labels).values()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_rgd_without_its_node_term_is_free_of_parameters():
    assert not list(Rig(2, terms={"kd": {}, "ffd": {}, "rgd": {"ln": 0.0}}).criterion.parameters())
    shapes = [tuple(weight.shape) for weight in Rig(2, terms={"rgd": {}}).criterion.parameters()]
    assert shapes == [(5, 4), (9, 8)]


def test_the_teacher_speaks_in_eval_mode_whatever_is_set_to_train():
    rig = Rig(2)
    expected = rig.criterion.teacher_forward(rig.image)
    before = {name: value.clone() for name, value in rig.teacher.state_dict().items()}
    rig.teacher.train()
    rig.criterion.train()
    teacher = rig.criterion.teacher_forward(rig.image)
    torch.testing.assert_close(teacher.logits, expected.logits, rtol=0, atol=0)
    assert not teacher.logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in rig.teacher.state_dict().items())


def test_building_leaves_the_student_and_the_random_stream_alone():
    student = small_network("light_unet", 3)
    student.encoder[0].eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    modes = [module.training for module in student.modules()]
    teacher = small_network("residual_unet", 3)
    torch.manual_seed(11)
    Distillation(DistillationSettings(), student, teacher, torch.zeros(2, 1, 8, 8, 8))
    drawn = torch.rand(1)
    torch.manual_seed(11)
    assert drawn == torch.rand(1)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert [module.training for module in student.modules()] == modes


def test_the_ramp_fades_terms_on_features_in_and_leaves_logits_alone():
    rig = Rig(2, ramp=0.2)
    outputs = rig.outputs()
    full, half, start = (rig.criterion(*outputs, rig.labels, progress) for progress in (0.2, 0.1, 0.0))
    for name in ("ffd", "rgd"):
        torch.testing.assert_close(half[name], 0.5 * full[name])
        assert start[name] == 0
    assert start["kd"] == full["kd"]
    assert Rig(2, ramp=0.0).terms(0.0)["ffd"] > 0


def test_weights_scale_their_terms_and_zero_switches_off():
    rig = Rig(2, terms={"kd": {"weight": 3.0}, "ffd": {"weight": 0.0}, "rgd": {}})
    outputs = rig.outputs()
    weighted, plain = rig.criterion(*outputs, rig.labels), rig.criterion.terms(*outputs, rig.labels)
    torch.testing.assert_close(weighted["kd"], 3 * plain["kd"])
    assert weighted["ffd"] == 0
    assert list(weighted) == ["kd", "ffd", "rgd"]


@dims
def test_chooses_the_last_decoder_stage_and_one_at_stride_4_to_8(dim):
    assert Rig(dim).criterion.levels == (("decoder.1", "decoder.1"), ("encoder.2", "encoder.2"))
    deep = {"channels": (4, 5, 6, 7)}
    rig = Rig(
        dim, student=small_network("light_unet", dim, **deep), teacher=small_network("residual_unet", dim, **deep)
    )
    assert rig.criterion.levels == (("decoder.2", "decoder.2"), ("decoder.0", "decoder.0"))


def test_shallow_networks_keep_the_last_stage_alone():
    shallow = {"channels": (4, 6)}
    rig = Rig(2, student=small_network("light_unet", 2, **shallow))
    assert rig.criterion.levels == (("decoder.0", "decoder.1"),)


def test_levels_can_be_named_on_either_side():
    paths = {"student_levels": ("decoder.0", "encoder.1"), "teacher_levels": ("decoder.0", "encoder.1")}
    assert Rig(2, **paths).criterion.levels == (("decoder.0", "decoder.0"), ("encoder.1", "encoder.1"))
    assert Rig(2, student_levels=("decoder.0",)).criterion.levels == (("decoder.0", "decoder.0"),)
    assert Rig(2, teacher_levels=("decoder.0",)).criterion.levels == (("decoder.0", "decoder.0"),)


@dims
def test_a_stem_that_strides_meets_a_teacher_that_does_not(dim):
    strides = ((2,) * dim, (2,) * dim, (2,) * dim)
    for odd in (SIDE, SIDE + 3):
        rig = Rig(dim, side=odd, student=small_network("light_unet", dim, strides=strides))
        terms = rig.terms()
        assert all(term.isfinite() and term > 0 for term in terms.values())


@dims
def test_padding_inside_a_network_is_not_distilled(dim):
    """A teacher that pads by more than the student gives the same loss as one that sees exactly the image."""
    rig = Rig(dim, side=SIDE + 3)
    student, teacher = rig.outputs()
    plain = rig.criterion.terms(student, teacher, rig.labels)
    padding = [amount for _ in range(dim) for amount in (0, 4)]
    padded = tuple(nn.functional.pad(tensor, padding, value=1e3) for tensor in teacher.features)
    for name, value in rig.criterion.terms(student, Outputs(teacher.logits, padded), rig.labels).items():
        torch.testing.assert_close(value, plain[name])


@dims
def test_another_size_than_the_example_is_fine(dim):
    rig = Rig(dim)
    rig.image = torch.randn(3, 1, *[12 + 5 * axis for axis in range(dim)])
    rig.labels = None
    assert all(term.isfinite() for term in rig.terms().values())


def test_a_student_that_is_its_own_teacher_learns_nothing():
    network = small_network("light_unet", 3).eval()
    rig = Rig(3, student=network, teacher=network)
    # Random weights make tiny features, and the cosine's guard against zero vectors shows in the sixth digit.
    assert all(term.abs() < 1e-4 for term in rig.terms().values())


class Foreign(nn.Module):
    """A teacher that knows nothing of levels and does not pad: strides of 2 round up."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.head = nn.Conv2d(6, classes, 1)

    def forward(self, image):
        return nn.functional.interpolate(self.head(self.down(image)), size=image.shape[2:])


def test_a_foreign_teacher_needs_its_modules_named():
    with pytest.raises(SettingsError, match="does not name its stages; set teacher_levels"):
        Rig(2, teacher=Foreign())
    rig = Rig(2, side=19, teacher=Foreign(), teacher_levels=("down",))
    assert rig.criterion.levels == (("decoder.1", "down"),)
    assert all(term.isfinite() and term > 0 for term in rig.terms().values())


class Pyramid(Foreign):
    """A teacher with deep supervision: several outputs."""

    def forward(self, image):
        return [super().forward(image)]


class Coarse(Foreign):
    """A teacher whose logits are smaller than the image."""

    def forward(self, image):
        return self.head(self.down(image))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"teacher": Foreign(4), "teacher_levels": ("down",)}, "teacher has 4 classes and the student 3"),
        ({"teacher": Pyramid(), "teacher_levels": ("down",)}, "teacher returns list"),
        ({"teacher": Coarse(), "teacher_levels": ("down",)}, "must return logits of the same size"),
        ({"student_levels": ("decoder.9",)}, "did you mean 'decoder"),
        ({"student_levels": ("decoder.0",), "teacher_levels": ("decoder.0", "decoder.1")}, "are pairs"),
    ],
)
def test_networks_that_do_not_fit_get_a_sentence(section, message):
    with pytest.raises(ValueError, match=message):
        Rig(2, **section)


class Flat(Foreign):
    """A teacher with a module that has no spatial axes."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()

    def forward(self, image):
        self.flat(image)
        return super().forward(image)


def test_features_without_the_images_axes_are_refused():
    with pytest.raises(SettingsError, match=r"'flat' has shape .*need 2 spatial axes"):
        Rig(2, teacher=Flat(), teacher_levels=("flat",))


@pytest.mark.parametrize("shape", [(2, 1, SIDE, SIDE), (2, SIDE, SIDE - 1)])
def test_labels_of_another_shape_are_refused(shape):
    rig = Rig(2)
    with pytest.raises(SettingsError, match="distillation needs \\[N, \\*spatial\\]"):
        rig.criterion(*rig.outputs(), torch.zeros(shape, dtype=torch.long))
