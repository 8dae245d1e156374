"""Region Graph Distillation: how the teacher's regions relate to one another, and to each other's neighbours."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mskd.distillation.base import METHODS, FilterSettings, Method, Weight, voxel_weight
from mskd.distillation.context import Context
from mskd.distillation.nodes import (
    Membership,
    Pairs,
    edges,
    patch_members,
    region_members,
    shuffle_nodes,
    unit,
    walks,
)
from mskd.distillation.outputs import Outputs, Shapes
from mskd.distillation.regions import Regions, background_ring

NodeKind = Literal["class", "split", "patch"]


def node_loss(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """mean_i 1 - cos(V_i^S, V_i^T) over valid nodes, per item: ``[B]``, 0 where none is valid.

    Args:
        student, teacher: ``[B, R, C]``, the student's already projected to the teacher's channels.
        valid: ``[B, R]``.
    """
    distance = 1 - (unit(student) * unit(teacher)).sum(-1)
    return _mean(distance, valid)


def edge_loss(student: Tensor, teacher: Tensor, pairs: Tensor) -> Tensor:
    """mean_{i != j} (E_ij^S - E_ij^T)^2 over valid pairs, per item: ``[B]``; E, pairs ``[B, R, R]``."""
    return _mean((student - teacher).square().flatten(1), pairs.flatten(1))


def walk_loss(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """mean_i KL(P_T(i, .) || P_S(i, .)) over valid nodes, per item: ``[B]``; P ``[B, R, R]`` rows sum to 1."""
    floor = torch.finfo(student.dtype).tiny
    divergence = torch.xlogy(teacher, teacher) - teacher * student.clamp(min=floor).log()
    return _mean(divergence.sum(-1), valid)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, values, 0.0).sum(-1) / chosen.sum(-1).clamp(min=1)


class RGDSettings(FilterSettings):
    """RGD's switches, besides those of the spatial filter, which weighs the voxels of a node.

    Args:
        weight: The default is near what calibration gives for a small 3D student; see ``calibrate``.
        nodes: ``class``: a region's mean; ``split``: the parts of each foreground region, cut at its centroid along
            every axis; ``patch``: a regular division of the grid. Any combination.
        patches: Patches along each axis.
        background: Its node: a ``ring`` of 2 grid voxels around the foreground, ``all`` of the background, or ``none``.
        ln, le, lh: Weights of the node, edge and higher-order terms. ``ln = 0`` needs no projection and so is strictly
            free of parameters.
        temperature: Of the walk's softmax.
        hops: Steps of the walk.
        shuffled: Control: the teacher's nodes change places, the gain must vanish.
    """

    weight: Weight = 0.1
    nodes: Annotated[tuple[NodeKind, ...], Field(min_length=1, max_length=3)] = ("class", "split")
    patches: Annotated[int, Field(ge=2, le=16)] = 2
    background: Literal["ring", "all", "none"] = "ring"
    ln: Weight = 1.0
    le: Weight = 1.0
    lh: Weight = 1.0
    temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 0.2
    hops: Literal[1, 2] = 2
    shuffled: bool = False


@METHODS.register("rgd")
class RGD(Method):
    """Sum over levels of ln * nodes + le * edges + lh * higher order.

    psi, one bias-free linear map per level, starts as the (rectangular) identity: the same on every rank, and without
    drawing from the random stream that the rest of the run depends on.
    """

    Settings = RGDSettings

    def __init__(self, settings: RGDSettings, shapes: Shapes) -> None:
        super().__init__(settings, shapes)
        self.settings = settings
        channels = zip(shapes.student, shapes.teacher, strict=True) if settings.ln > 0 else ()
        self.projections = nn.ParameterList(torch.eye(outputs, inputs) for inputs, outputs in channels)

    def forward(self, student: Outputs, teacher: Outputs, context: Context) -> Tensor:
        levels = range(context.levels)
        return torch.stack([self._level(student, teacher, context, level) for level in levels]).sum()

    def _level(self, student: Outputs, teacher: Outputs, context: Context, level: int) -> Tensor:
        settings, regions = self.settings, context.regions(level)
        with torch.no_grad():
            members = self._members(regions, voxel_weight(settings, context, level))
            valid = members.valid & regions.has_foreground[:, None]
            theirs = members.means(teacher.features[level])
            if settings.shuffled:
                theirs = shuffle_nodes(theirs, valid)
        ours = members.means(student.features[level])
        pairs = (
            valid[:, :, None] & valid[:, None, :] & ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
        )
        loss = ours.new_zeros(len(ours))
        if settings.ln > 0:
            psi = self.projections[level].to(ours.dtype)
            loss = loss + settings.ln * node_loss(ours @ psi.T, theirs, valid)
        if settings.le > 0 or settings.lh > 0:
            edge_s, edge_t = edges(ours), edges(theirs)
            loss = loss + settings.le * edge_loss(edge_s, edge_t, pairs)
            walk_s, walk_t = (
                walks(edge, pairs, temperature=settings.temperature, hops=settings.hops) for edge in (edge_s, edge_t)
            )
            loss = loss + settings.lh * walk_loss(walk_s, walk_t, valid)
        return loss.mean()

    def _members(self, regions: Regions, weight: Tensor) -> Membership:
        nodes, grid, groups = self.settings.nodes, regions.grid, []
        if "class" in nodes or "split" in nodes:
            organs = Pairs.of(regions.area[:, 1:]).present(regions.valid[:, 1:])
            if "class" in nodes:
                pairs = self._with_background(organs, regions)
                groups.append(region_members(pairs, weight, grid, regions.n_min, split=False))
            if "split" in nodes:
                groups.append(region_members(organs, weight, grid, regions.n_min, split=True))
        if "patch" in nodes:
            groups.append(patch_members(weight, grid, self.settings.patches))
        return Membership.join(groups)

    def _with_background(self, organs: Pairs, regions: Regions) -> Pairs:
        """The foreground regions, and the background after them."""
        if self.settings.background == "none":
            return organs
        ring = self.settings.background == "ring"
        return organs.and_one(background_ring(regions.area, regions.grid) if ring else regions.area[:, 0])
