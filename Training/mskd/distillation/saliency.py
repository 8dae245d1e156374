"""Where a network looks, without a single parameter: the channel filter and the spatial filter of FFD."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

EPS = 1e-6
FilterKind = Literal["teacher", "random", "inverted", "none"]


def channel_filter(features: Tensor) -> Tensor:
    """Collapse channels into one standardised saliency map.

    X = ReLU(F);  g_c = mean_p X_c;  w = softmax_c(g / mean_c g);  M(p) = sum_c w_c X_c(p);
    Z = (M - mean_p M) / (std_p M + eps), std over the population.

    A sigmoid of the raw map would stay within 0.500..0.516 and filter nothing, hence the standardisation.

    Args:
        features: ``[B, C, n]``.

    Returns:
        Z ``[B, n]``; zero everywhere for a map without contrast.
    """
    positive = features.relu()
    strength = positive.mean(-1)
    weight = torch.softmax(strength / (strength.mean(-1, keepdim=True) + EPS), dim=-1)
    saliency = torch.einsum("bc,bcn->bn", weight, positive)
    centred = saliency - saliency.mean(-1, keepdim=True)
    # The clamp keeps the gradient of the root finite where a map has no contrast.
    deviation = centred.square().mean(-1, keepdim=True).clamp(min=EPS**2).sqrt()
    return centred / (deviation + EPS)


def spatial_filter(saliency: Tensor, *, theta: float, gamma: float, kind: FilterKind) -> Tensor:
    """How much each voxel counts, from the teacher's saliency map.

    P_f = sigmoid(Z_T);  P_b = 1 - P_f;  P_u = P_f 1[P_f >= theta] + P_b 1[P_b >= theta];
    W = exp(gamma P_u) 1[P_u > 0], scaled to mean 1 over n.

    ``inverted`` takes P_u = max(P_f, P_b) where that is below theta, so it keeps nothing when theta is 0.5.

    Args:
        saliency: Z_T ``[B, n]``.

    Returns:
        W ``[B, n]``; zero everywhere for an item of which the filter keeps nothing.
    """
    if kind == "none":
        return torch.ones_like(saliency)
    foreground = torch.sigmoid(saliency)
    confidence = torch.maximum(foreground, 1 - foreground)
    kept = confidence < theta if kind == "inverted" else confidence >= theta
    weight = torch.exp(gamma * confidence) * kept
    if kind == "random":
        order = torch.rand_like(weight).argsort(dim=-1)
        weight = weight.gather(-1, order)
    return weight / weight.mean(-1, keepdim=True).clamp(min=EPS)
