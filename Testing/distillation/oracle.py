"""The losses once more, in plain NumPy loops and float64, from the equations and not from the implementation.

Slow on purpose: one voxel, one region, one pair at a time. Arrays are ``[B, C, *grid]``, labels ``[B, *shape]``.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

EPS = 1e-6


def voxels(shape):
    return list(itertools.product(*(range(side) for side in shape)))


def softmax(values):
    shifted = [math.exp(value - max(values)) for value in values]
    return [value / sum(shifted) for value in shifted]


def kd(student, teacher, temperature):
    """T^2 mean over batch and voxels of KL(teacher || student)."""
    total, count = 0.0, 0
    for item in range(len(student)):
        for p in voxels(student.shape[2:]):
            theirs = softmax([teacher[(item, k, *p)] / temperature for k in range(teacher.shape[1])])
            ours = softmax([student[(item, k, *p)] / temperature for k in range(student.shape[1])])
            total += sum(t * math.log(t / s) for t, s in zip(theirs, ours, strict=True))
            count += 1
    return temperature**2 * total / count


def block(p, strides, shape):
    """The voxels of a volume of ``shape`` that lie in grid voxel ``p``."""
    sides = [range(i * s, min((i + 1) * s, n)) for i, s, n in zip(p, strides, shape, strict=True)]
    return list(itertools.product(*sides))


def area(labels, classes, grid, strides):
    """A[k][p] of one item: the share of grid voxel p that carries label k."""
    pooled = [dict.fromkeys(voxels(grid), 0.0) for _ in range(classes)]
    for p in voxels(grid):
        inside = block(p, strides, labels.shape)
        for voxel in inside:
            if 0 <= labels[voxel] < classes:
                pooled[labels[voxel]][p] += 1.0 / len(inside)
    return pooled


def average_pool(features, strides):
    grid = tuple(math.ceil(side / step) for side, step in zip(features.shape[2:], strides, strict=True))
    pooled = np.zeros(features.shape[:2] + grid)
    for item, channel in itertools.product(range(features.shape[0]), range(features.shape[1])):
        for p in voxels(grid):
            inside = block(p, strides, features.shape[2:])
            pooled[(item, channel, *p)] = np.mean([features[(item, channel, *voxel)] for voxel in inside])
    return pooled


def saliency(features):
    """Z of one item's features ``[C, *grid]``."""
    places = voxels(features.shape[1:])
    rectified = [[max(float(features[(c, *p)]), 0.0) for p in places] for c in range(len(features))]
    strength = [sum(row) / len(places) for row in rectified]
    mean_strength = sum(strength) / len(strength)
    weights = softmax([value / (mean_strength + EPS) for value in strength])
    collapsed = [sum(weights[c] * rectified[c][i] for c in range(len(features))) for i in range(len(places))]
    mean = sum(collapsed) / len(places)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in collapsed) / len(places))
    return {p: (value - mean) / (deviation + EPS) for p, value in zip(places, collapsed, strict=True)}


def spatial_weight(z, theta, gamma, kind):
    weight = {}
    for p, value in z.items():
        front = 1 / (1 + math.exp(-value))
        back = 1 - front
        confidence = (front if front >= theta else 0.0) + (back if back >= theta else 0.0)
        if kind == "inverted":
            confidence = 0.0 if confidence > 0 else max(front, back)
        weight[p] = 1.0 if kind == "none" else (math.exp(gamma * confidence) if confidence > 0 else 0.0)
    mean = sum(weight.values()) / len(weight)
    return {p: value / mean if mean > 0 else 0.0 for p, value in weight.items()}


class Item:
    """Everything of one batch item on one level."""

    def __init__(self, student, teacher, logits, labels, strides, *, mode, n_min, theta, gamma, filter):
        self.student, self.teacher, self.grid = student, teacher, student.shape[1:]
        self.places, self.n_min = voxels(self.grid), n_min
        self.z_student, self.z_teacher = saliency(student), saliency(teacher)
        kind = "none" if mode == "mask" else filter
        self.weight = spatial_weight(self.z_teacher, theta, gamma, kind)
        classes = len(logits)
        chance = np.exp(logits) / np.exp(logits).sum(0)
        known = (labels >= 0) & (labels < classes)
        masks = np.where(known, labels, -1) if known.any() else chance.argmax(0)
        self.correct = {}
        for p in self.places:
            inside = block(p, strides, labels.shape)
            values = [chance[(labels[v], *v)] if known[v] else 1.0 for v in inside]
            self.correct[p] = sum(values) / len(values)
        if mode == "saliency":
            front = {p: 1.0 if self.z_teacher[p] >= 0 else 0.0 for p in self.places}
            self.area = [{p: 1 - front[p] for p in self.places}, front]
        else:
            self.area = area(masks, classes, self.grid, strides)
        self.size = [sum(region.values()) for region in self.area]
        self.present = [size >= n_min for size in self.size]


def ffd(items, *, correctness, region_normalisation, background):
    total = 0.0
    for item in items:
        alpha = [(background if k == 0 else 1.0) * item.present[k] for k in range(len(item.area))]
        loss = 0.0
        for p in item.places:
            if region_normalisation:
                r = sum(a * item.area[k][p] / item.size[k] for k, a in enumerate(alpha) if a) if any(alpha) else 0.0
                r = r / sum(alpha) if any(alpha) else 0.0
            else:
                covered = sum(a * item.size[k] for k, a in enumerate(alpha))
                r = sum(a * item.area[k][p] for k, a in enumerate(alpha)) / covered if covered else 0.0
            c = item.correct[p] if correctness else 1.0
            loss += r * item.weight[p] * c * (item.z_student[p] - item.z_teacher[p]) ** 2
        total += loss
    return total / len(items)


def ring(item):
    front = {p for p in item.places if any(region[p] > 0 for region in item.area[1:])}
    near = {p for p in item.places if any(all(abs(a - b) <= 2 for a, b in zip(p, q, strict=True)) for q in front)}
    return {p: item.area[0][p] if p in near - front else 0.0 for p in item.places}


def members(item, region):
    """Shares of one node's voxels (adding up to 1), or None for an absent node."""
    if sum(region.values()) < item.n_min:
        return None
    core = {p: 1.0 for p, a in region.items() if a >= 0.5}
    chosen = core or {p: a for p, a in region.items() if a > 0}
    shares = {p: a * item.weight[p] for p, a in chosen.items()}
    total = sum(shares.values())
    return {p: a / total for p, a in shares.items()} if total > 0 else None


def split(item, region):
    size = sum(region.values())
    dim = len(item.grid)
    centroid = [sum(a * p[axis] for p, a in region.items()) / size for axis in range(dim)]
    for upper in itertools.product([False, True], repeat=dim):
        yield {
            p: a if all((p[axis] > centroid[axis] + 1e-3) == upper[axis] for axis in range(dim)) else 0.0
            for p, a in region.items()
        }


def nodes(item, kinds, background, patches):
    found = []
    front = [region for region, present in zip(item.area[1:], item.present[1:], strict=True) if present]
    if not front:
        return []
    for kind in kinds:
        if kind == "class":
            found += [members(item, region) for region in front]
            if background != "none":
                found.append(members(item, ring(item) if background == "ring" else item.area[0]))
        elif kind == "split":
            found += [members(item, part) for region in front for part in split(item, region)]
        else:
            for cell in itertools.product(range(patches), repeat=len(item.grid)):
                inside = [
                    p
                    for p in item.places
                    if all(int((i + 0.5) * patches / side) == c for i, side, c in zip(p, item.grid, cell, strict=True))
                ]
                total = sum(item.weight[p] for p in inside)
                found.append({p: item.weight[p] / total for p in inside} if total > 0 else None)
    return [node for node in found if node is not None]


def vectors(features, shares):
    mean = features.reshape(len(features), -1).mean(1)
    return [sum(a * (features[(slice(None), *p)] - mean) for p, a in node.items()) for node in shares]


def cosine(a, b):
    return float(a @ b / math.sqrt((a @ a + 1e-10) * (b @ b + 1e-10)))


def walk(edge, temperature, hops):
    count = len(edge)
    step = np.zeros((count, count))
    for i in range(count):
        others = [j for j in range(count) if j != i]
        for j, share in zip(others, softmax([edge[i][j] / temperature for j in others]) if others else [], strict=True):
            step[i, j] = share
    return step if hops == 1 else step @ step


def rgd(items, psi, *, nodes_of, background, patches, ln, le, lh, temperature, hops):
    total = 0.0
    for item in items:
        shares = nodes(item, nodes_of, background, patches)
        ours, theirs = vectors(item.student, shares), vectors(item.teacher, shares)
        count = len(shares)
        if count:
            total += ln * sum(1 - cosine(psi @ a, b) for a, b in zip(ours, theirs, strict=True)) / count
        if count < 2:
            continue
        edge_s = [[cosine(a, b) for b in ours] for a in ours]
        edge_t = [[cosine(a, b) for b in theirs] for a in theirs]
        pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
        total += le * sum((edge_s[i][j] - edge_t[i][j]) ** 2 for i, j in pairs) / len(pairs)
        walk_s, walk_t = walk(edge_s, temperature, hops), walk(edge_t, temperature, hops)
        rows = [
            sum(t * math.log(t / s) for t, s in zip(walk_t[i], walk_s[i], strict=True) if t > 0) for i in range(count)
        ]
        total += lh * sum(rows) / count
    return total / len(items)
