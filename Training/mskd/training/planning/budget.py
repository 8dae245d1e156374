"""What may be spent on a training: memory, and arithmetic, which is time on a machine without a GPU."""

from __future__ import annotations

from typing import Literal

from mskd.spec import Strict

SECONDS_PER_GMAC = 0.14
"""Of a training step on one CPU core, per 1e9 multiply-adds of its forward pass: nine U-Nets, 2D and 3D, 0.4 M to 3 M
weights, took 0.10 to 0.19 s (AVX2, torch 2.13, one thread)."""


class RoleBudget(Strict):
    """Of one network.

    Args:
        width: Channels of the finest resolution, 3D and 2D; each coarser one doubles them up to ``widest``.
        stages: Most resolutions.
        work: Multiply-adds of all forward passes of a training; 0 sets no limit.
        steps: Fewest, wanted and most optimiser steps: fewer make the patch smaller, more make the batch larger.
    """

    width: tuple[int, int]
    widest: tuple[int, int]
    stages: int
    work: float
    steps: tuple[int, int, int]


class Budget(Strict):
    """Of a teacher and a student that see the same patches.

    Args:
        memory: Bytes for the activations, gradients and weights of one network in training.
        coverage: Share of a median case that a patch must show; a coarser grid makes up for what is missing.
    """

    name: str
    memory: float
    coverage: float
    teacher: RoleBudget
    student: RoleBudget

    def role(self, name: Literal["teacher", "student"]) -> RoleBudget:
        return self.teacher if name == "teacher" else self.student


# About 25 and 70 minutes on one core, validation aside.
LAPTOP = Budget(
    name="laptop",
    memory=4e9,
    coverage=0.12,
    student=RoleBudget(width=(8, 12), widest=(48, 64), stages=5, work=10e12, steps=(1800, 3000, 5000)),
    teacher=RoleBudget(width=(16, 24), widest=(128, 192), stages=5, work=30e12, steps=(1800, 3000, 5000)),
)


def choose_budget(text: str) -> Budget:
    """``laptop``, ``gpu`` (8 GB, as nnU-Net plans), or the memory of a GPU like ``24GB``."""
    if text == "laptop":
        return LAPTOP
    memory = 8e9 if text == "gpu" else float(text.removesuffix("GB")) * 1e9
    return Budget(
        name=text,
        memory=memory,
        coverage=0.03,
        student=RoleBudget(width=(16, 24), widest=(96, 128), stages=6, work=0, steps=(20_000, 20_000, 20_000)),
        teacher=RoleBudget(width=(32, 32), widest=(320, 512), stages=7, work=0, steps=(30_000, 30_000, 30_000)),
    )
