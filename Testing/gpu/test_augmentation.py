"""Crops go to a GPU and become there the batches that the processor makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mskd.data.intensity import CHANGES
from mskd.data.patches import PatchSampler, augment
from mskd.data.prepared import IGNORE, PreparedCase
from mskd.training.settings import AugmentationSettings

# A generator's numbers depend on the device, so that noise is left out.
SETTINGS = AugmentationSettings(
    spatial=1.0,
    elastic=1.0,
    mirror=("x", "y", "z"),
    **{name: float(name != "noise") for name in CHANGES},  # type: ignore[arg-type]
)


@pytest.fixture(scope="module")
def case() -> PreparedCase:
    shape = (40, 48, 44)
    axes = np.meshgrid(*(np.linspace(0, 6, side) for side in shape), indexing="ij")
    image = np.stack([np.sin(axes[0] + channel) + np.cos(axes[1] * axes[2]) for channel in range(6)])
    labels = np.digitize(image[0], [-0.5, 0.0, 0.5, 1.0]).astype(np.uint8)
    labels[:, :2] = IGNORE
    foreground = {value: np.argwhere(labels == value) for value in range(1, 5)}
    logits = np.stack([(labels == value) * 8.0 for value in range(5)]).astype(np.float16)
    return PreparedCase("case", image.astype(np.float32), labels, (2.0, 1.0, 1.0), foreground, logits)


@pytest.mark.parametrize("patch", [(32, 32, 24), (32, 28)])
def test_a_batch_is_that_of_the_processor(case: PreparedCase, patch: tuple[int, ...]) -> None:
    crops = PatchSampler([case], patch, SETTINGS, 0.5, 0, swap=[(1, 2)]).draw(0, range(8))
    expected = augment(crops)
    pinned = crops.pin_memory()
    assert all(sample.image.is_pinned() for sample in pinned.samples)
    found = augment(pinned.to(torch.device("cuda")))
    assert found.images.is_cuda
    torch.testing.assert_close(found.images.cpu(), expected.images, rtol=1e-3, atol=2e-3)
    assert found.labels is not None
    assert expected.labels is not None
    assert found.labels.dtype == torch.int64
    assert bool((expected.labels == -1).any())
    assert float((found.labels.cpu() == expected.labels).float().mean()) > 0.9995
    assert found.teacher_logits is not None
    assert expected.teacher_logits is not None
    torch.testing.assert_close(found.teacher_logits.cpu(), expected.teacher_logits, rtol=1e-3, atol=1e-2)
