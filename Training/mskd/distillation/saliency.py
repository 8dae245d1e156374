"""Where a network looks, without a single parameter: the channel filter and the spatial filter of FFD."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mskd.distillation.draws import uniform_rows

EPS = 1e-6
FilterKind = Literal["teacher", "random", "inverted", "none"]


class _Collapse(torch.autograd.Function):
    """M(p) = sum_c w_c X_c(p) of ``[B, C, n]`` features.

    As written its gradient passes over the features many times, and training waits for memory, not for arithmetic.
    Here it is one pass, which keeps the layout of the features, and X is computed twice instead of kept.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        collapsed, strengths = [], []
        for part in _parts(features):
            positive = part.relu()
            strengths.append(positive.mean(-1))
            collapsed.append(torch.bmm(_channel_weight(strengths[-1])[:, None], positive)[:, 0])
        ctx.save_for_backward(features, torch.cat(strengths))
        return torch.cat(collapsed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        features, strengths = ctx.saved_tensors
        result = torch.empty_like(features)
        for part, strength, of_map, out in zip(*map(_parts, (features, strengths, gradient, result)), strict=True):
            positive, weight = part.relu(), _channel_weight(strength)
            of_weight = torch.bmm(positive, of_map[..., None])[..., 0]
            of_score = weight * (of_weight - (weight * of_weight).sum(-1, keepdim=True))
            level = strength.mean(-1, keepdim=True) + EPS
            of_strength = of_score / level - (of_score * strength).mean(-1, keepdim=True) / level**2
            each = (of_strength / part.shape[-1])[..., None]
            torch.addcmul(each, weight[..., None], of_map[:, None], out=out)
            torch.ops.aten.threshold_backward.grad_input(out, positive, 0, grad_input=out)
        return result


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    """On a processor the items of a batch: what fits its cache is fetched from memory once."""
    return values.split(1) if values.device.type == "cpu" else (values,)


def _channel_weight(strength: Tensor) -> Tensor:
    """w = softmax_c(g / mean_c g) of g ``[B, C]``."""
    return torch.softmax(strength / (strength.mean(-1, keepdim=True) + EPS), dim=-1)


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
    saliency: Tensor = _Collapse.apply(features)  # type: ignore[no-untyped-call]
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
        order = uniform_rows(weight).argsort(dim=-1)
        weight = weight.gather(-1, order)
    return weight / weight.mean(-1, keepdim=True).clamp(min=EPS)
