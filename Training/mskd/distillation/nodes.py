"""Region graphs: nodes from regions and patches, edges, and walks of one or two hops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mskd.distillation.draws import uniform_rows
from mskd.distillation.regions import CORE, flat_cells

TIE = 1e-3
EPS = 1e-5


class _CentredMeans(torch.autograd.Function):
    """Node vectors minus the item's mean, of ``rows`` ``[B * n, C]``; the gradient is written in one pass."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, node: Tensor, voxel: Tensor, share: Tensor, batch: int, nodes: int) -> Tensor:
        ctx.save_for_backward(node, voxel, share)
        ctx.batch, ctx.rows = batch, len(rows)
        means = rows.new_zeros(nodes, rows.shape[1])
        means.index_add_(0, node, rows.index_select(0, voxel).mul_(share[:, None]))
        centre = rows.view(batch, -1, rows.shape[1]).mean(1, keepdim=True)
        return means.view(batch, -1, rows.shape[1]).sub_(centre).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        node, voxel, share = ctx.saved_tensors
        channels, voxels = gradient.shape[1], ctx.rows // ctx.batch
        centre = gradient.view(ctx.batch, -1, channels).sum(1, keepdim=True) / -voxels
        result = centre.repeat(1, voxels, 1).view(-1, channels)
        result.index_add_(0, voxel, gradient.index_select(0, node).mul_(share[:, None]))
        return result, None, None, None, None, None


@dataclass(frozen=True)
class Membership:
    """Which voxels make up which node, as a list of (node, voxel, share) triples; shares of a node add up to 1.

    Args:
        node: ``[m]`` index into the flattened ``[B, R]`` nodes.
        voxel: ``[m]`` index into the flattened ``[B, n]`` voxels.
        share: ``[m]``.
        valid: ``[B, R]``, False for a node that is absent.
    """

    node: Tensor
    voxel: Tensor
    share: Tensor
    valid: Tensor

    def means(self, features: Tensor) -> Tensor:
        """The node vectors of ``features`` ``[B, C, *grid]``, centred: ``[B, R, C]``.

        Centred, because cosines of what a ReLU left are otherwise all near 1. An absent node's vector means nothing.
        """
        batch, channels = features.shape[:2]
        rows = features.flatten(2).transpose(1, 2).reshape(-1, channels)
        centred: Tensor = _CentredMeans.apply(  # type: ignore[no-untyped-call]
            rows, self.node, self.voxel, self.share, batch, self.valid.numel()
        )
        return centred.view(batch, -1, channels)

    @classmethod
    def join(cls, groups: Sequence[Membership]) -> Membership:
        """The nodes of all ``groups``, one group after another within each item."""
        total, before, nodes = sum(group.valid.shape[1] for group in groups), 0, []
        for group in groups:
            count = group.valid.shape[1]
            nodes.append(group.node // count * total + group.node % count + before)
            before += count
        return cls(
            torch.cat(nodes),
            torch.cat([group.voxel for group in groups]),
            torch.cat([group.share for group in groups]),
            torch.cat([group.valid for group in groups], dim=1),
        )


@dataclass(frozen=True)
class Pairs:
    """Every (region, voxel) pair in which the region covers something of the voxel, ``m`` of them.

    Args:
        item, region, place: ``[m]`` indices into ``[B, R, n]``.
        mass: ``[m]`` in (0, 1], the share of the grid voxel.
        regions: R.
    """

    item: Tensor
    region: Tensor
    place: Tensor
    mass: Tensor
    regions: int

    @classmethod
    def of(cls, area: Tensor) -> Pairs:
        """The pairs of ``area`` ``[B, R, n]``."""
        item, region, place = area.nonzero().unbind(1)
        return cls(item, region, place, area[item, region, place], area.shape[1])

    def present(self, valid: Tensor) -> Pairs:
        """The pairs of the regions that are ``valid`` ``[B, R]``."""
        if bool(valid.all()):
            return self
        kept = valid[self.item, self.region]
        return Pairs(self.item[kept], self.region[kept], self.place[kept], self.mass[kept], self.regions)

    def and_one(self, area: Tensor) -> Pairs:
        """These regions, and after them one more, of which ``area`` ``[B, n]`` is the share of each voxel."""
        item, place = area.nonzero().unbind(1)
        return Pairs(
            torch.cat([self.item, item]),
            torch.cat([self.region, torch.full_like(item, self.regions)]),
            torch.cat([self.place, place]),
            torch.cat([self.mass, area[item, place]]),
            self.regions + 1,
        )


def region_members(pairs: Pairs, weight: Tensor, grid: tuple[int, ...], n_min: float, *, split: bool) -> Membership:
    """One node per region, or with ``split`` its parts: the region cut at its centroid along every axis, 2^dim parts.

    A node is the mean over its core (area >= 0.5) weighted by W; without a core voxel (a tiny organ), over all of it.
    A node is absent when it holds fewer than ``n_min`` grid voxels or the filter keeps nothing of it. A voxel exactly
    on the centroid belongs to the lower part.

    Args:
        weight: W ``[B, n]``.
    """
    batch, voxels = weight.shape
    node, count, mass = pairs.item * pairs.regions + pairs.region, pairs.regions, pairs.mass
    if split:
        node = (node << len(grid)) + _part(node, pairs.place, mass, batch * count, grid)
        count = count << len(grid)
    zeros = weight.new_zeros(batch * count)
    core = (mass >= CORE).to(mass.dtype)
    has_core = zeros.index_add(0, node, core) > 0
    voxel = pairs.item * voxels + pairs.place
    share = torch.where(has_core[node], core, mass) * weight.reshape(-1)[voxel]
    total = zeros.index_add(0, node, share)
    valid = (zeros.index_add(0, node, mass) >= n_min) & (total > 0)
    kept = ((share > 0) & valid[node]).nonzero()[:, 0]
    node, share = node[kept], share[kept]
    return Membership(node, voxel[kept], share / total[node], valid.view(batch, count))


def _part(node: Tensor, place: Tensor, mass: Tensor, nodes: int, grid: tuple[int, ...]) -> Tensor:
    """``[m]``: in which of the 2^dim parts of its region each voxel lies, one bit an axis."""
    zeros = mass.new_zeros(nodes)
    size = zeros.index_add(0, node, mass)
    part = torch.zeros_like(node)
    for axis, side in enumerate(grid):
        position = (place // prod(grid[axis + 1 :]) % side).to(mass.dtype)
        centroid = zeros.index_add(0, node, mass * position) / size
        part = part * 2 + (position - centroid[node] > TIE)
    return part


def patch_members(weight: Tensor, grid: tuple[int, ...], patches: int) -> Membership:
    """Nodes from a regular division of the grid into ``patches`` along every axis, each a mean weighted by W."""
    batch, voxels = weight.shape
    count = patches ** len(grid)
    cell = flat_cells(grid, (patches,) * len(grid), [side / patches for side in grid], weight.device)
    node = (cell + count * torch.arange(batch, device=weight.device)[:, None]).reshape(-1)
    total = weight.new_zeros(batch * count).index_add(0, node, weight.reshape(-1))
    voxel = torch.arange(batch * voxels, device=weight.device)
    kept = weight.reshape(-1) > 0
    node, share = node[kept], weight.reshape(-1)[kept]
    return Membership(node, voxel[kept], share / total[node], (total > 0).view(batch, count))


def unit(vectors: Tensor) -> Tensor:
    """Vectors scaled to length 1 along the last axis; a zero vector stays zero, with a finite gradient."""
    return vectors / (vectors.square().sum(-1, keepdim=True) + EPS**2).sqrt()


def edges(nodes: Tensor) -> Tensor:
    """E_ij = cos(V_i, V_j) of nodes ``[B, R, C]``: ``[B, R, R]``."""
    directions = unit(nodes)
    return directions @ directions.transpose(1, 2)


def walks(edge: Tensor, pairs: Tensor, *, temperature: float, hops: int) -> Tensor:
    """Where a walk of ``hops`` steps ends: P^hops with P = row-softmax over valid j != i of E / temperature.

    Args:
        edge: ``[B, R, R]``.
        pairs: ``[B, R, R]``, True for i != j, both valid.

    Returns:
        ``[B, R, R]``; a row without a valid neighbour is zero.
    """
    scores = (edge / temperature).masked_fill(~pairs, -torch.inf)
    alone = ~pairs.any(-1, keepdim=True)
    step = torch.softmax(scores.masked_fill(alone, 0.0), dim=-1).masked_fill(alone, 0.0)
    return step if hops == 1 else step @ step


def shuffle_nodes(nodes: Tensor, valid: Tensor) -> Tensor:
    """Control: each valid node of ``[B, R, C]`` takes the vector of another one, around a random cycle of them."""
    order = uniform_rows(valid).masked_fill(~valid, 2.0).argsort(dim=-1)
    count = valid.sum(-1, keepdim=True)
    rank = torch.arange(valid.shape[1], device=valid.device)
    following = torch.where(rank < count, (rank + 1) % count.clamp(min=1), rank)
    source = torch.empty_like(order).scatter_(1, order, order.gather(1, following))
    return nodes.gather(1, source[..., None].expand_as(nodes))
