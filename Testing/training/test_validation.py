"""Dice on prepared cases: what is ignored has no part in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mskd.data.prepared import PreparedCase
from mskd.spec import IGNORE, Label
from mskd.training.validation import chance_dice, validate

LABEL = (Label(value=1, name="organ", color=(0, 0, 0)),)


class KnowsWhereToStop(torch.nn.Module):
    """Class 1 wherever the image is not ``IGNORE``."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        beyond = (image == IGNORE).float()
        return torch.cat([beyond, 1 - beyond], dim=1)


def test_ignored_voxels_have_no_part_in_the_figures() -> None:
    labels = np.zeros((1, 4, 5), np.uint8)
    labels[:, :2, 2:], labels[:, 2:] = 1, IGNORE
    case = PreparedCase("a", labels[None].astype(np.float32), labels, (1.0, 1.0, 1.0), {})
    prediction = (labels != IGNORE).astype(np.uint8)
    whole = PreparedCase("b", case.image[:, :, :2], labels[:, :2], (1.0, 1.0, 1.0), {})
    result = validate(KnowsWhereToStop(), [case], LABEL, (1, 4, 5), torch.device("cpu"))
    assert result.dice == pytest.approx(2 * 6 / (10 + 6))
    assert chance_dice(case, prediction, 2) == pytest.approx(chance_dice(whole, prediction[:, :2], 2))
