"""Samples per second of one core: this augmentation beside nnU-Net's (batchgeneratorsv2), like for like.

    pip install batchgeneratorsv2
    python Testing/benchmarks/augmentation.py --output Testing/benchmarks/results/speed/augmentation.json

Both cut patches out of the same volume in memory and change them with the probabilities and ranges of nnU-Net's default
trainer (rotation up to 30 degrees, zoom 0.7 to 1.4, noise, blur, brightness, contrast, low resolution, two gammas,
mirroring along every axis), in one thread, in turns; what is compared is the processor time of a sample.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from mskd.data.patches import PatchSampler, augment
from mskd.data.prepared import PreparedCase
from mskd.inference.environment import keep_freed_memory
from mskd.training.settings import AugmentationSettings

# (patch, channels, labels)
SHAPES = {
    "3D 128 x 128 x 128": ((128, 128, 128), 1, 3),
    "3D 96 x 96 x 96, 14 labels": ((96, 96, 96), 1, 14),
    "3D 64 x 128 x 128, 4 channels": ((64, 128, 128), 4, 3),
    "2D 256 x 256": ((256, 256), 1, 3),
}
ROTATION, ZOOM = 30.0, (0.7, 1.4)
SPATIAL = 1 - 0.8 * 0.8
"""nnU-Net rotates a fifth of the samples, and scales a fifth."""


def volume(channels: int, labels: int, side: int = 192) -> PreparedCase:
    """Boxes of labels in noise."""
    rng = np.random.default_rng(0)
    mask = np.zeros((side,) * 3, np.uint8)
    for value in range(1, labels + 1):
        for _ in range(6):
            low = rng.integers(0, side - 50, 3)
            size = rng.integers(20, 50, 3)
            mask[tuple(slice(a, a + s) for a, s in zip(low, size, strict=True))] = value
    image = rng.normal(size=(channels, *mask.shape)).astype(np.float32) + mask / labels
    return PreparedCase("volume", image.astype(np.float32), mask, (1.0, 1.0, 1.0), {})


def ours(case: PreparedCase, patch: tuple[int, ...]) -> Callable[[int], Any]:
    settings = AugmentationSettings(
        spatial=SPATIAL,
        rotation=180.0 if len(patch) == 2 else ROTATION,
        scale=ZOOM,
        mirror=("x", "y", "z"),
        noise=0.1,
        blur=0.2,
        brightness=0.15,
        contrast=0.15,
        low_resolution=0.25,
        gamma=0.3,
        gamma_inverted=0.1,
    )
    sampler = PatchSampler([case], patch, settings, 0.0, seed=0)
    return lambda index: augment(sampler.draw(0, range(index, index + 1)))


def theirs(case: PreparedCase, patch: tuple[int, ...]) -> Callable[[int], Any]:
    angle = np.deg2rad(180.0 if len(patch) == 2 else ROTATION)
    contrast, gamma = BGContrast((0.75, 1.25)), BGContrast((0.7, 1.5))
    transforms = _nnunet(patch, (-angle, angle), contrast, gamma)
    rng = np.random.default_rng(0)
    # What nnU-Net cuts, so that a rotated patch finds its corners filled.
    sides = case.image.shape[-len(patch) :]
    reach = tuple(min(size, int(np.ceil(side * 1.4))) for side, size in zip(patch, sides, strict=True))

    def sample(index: int) -> Any:
        image, labels = case.image, case.labels
        if len(patch) == 2:
            plane = int(rng.integers(image.shape[1]))
            image, labels = image[:, plane], labels[plane]
        low = [int(rng.integers(size - side + 1)) for side, size in zip(reach, labels.shape, strict=True)]
        box = tuple(slice(a, a + s) for a, s in zip(low, reach, strict=True))
        cut = torch.from_numpy(image[(slice(None), *box)].copy())
        truth = torch.from_numpy(labels[box][None].astype(np.int16))
        return transforms(image=cut, segmentation=truth)

    return sample


def _nnunet(
    patch: tuple[int, ...], angles: tuple[float, float], contrast: RandomScalar, gamma: RandomScalar
) -> BasicTransform:
    """The list of nnU-Net v2's default trainer."""
    spatial = SpatialTransform(
        patch,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=0,
        p_rotation=0.2,
        rotation=angles,
        p_scaling=0.2,
        scaling=ZOOM,
        p_synchronize_scaling_across_axes=1,
        bg_style_seg_sampling=False,
    )
    changes = [
        (GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True), 0.1),
        (
            GaussianBlurTransform(
                blur_sigma=(0.5, 1.0),
                synchronize_channels=False,
                synchronize_axes=False,
                p_per_channel=0.5,
                benchmark=True,
            ),
            0.2,
        ),
        (MultiplicativeBrightnessTransform(contrast, synchronize_channels=False, p_per_channel=1), 0.15),
        (ContrastTransform(contrast, preserve_range=True, synchronize_channels=False, p_per_channel=1), 0.15),
        (
            SimulateLowResolutionTransform(
                scale=(0.5, 1),
                synchronize_channels=False,
                synchronize_axes=True,
                ignore_axes=None,
                allowed_channels=None,
                p_per_channel=0.5,
            ),
            0.25,
        ),
        (GammaTransform(gamma, p_invert_image=1, synchronize_channels=False, p_per_channel=1, p_retain_stats=1), 0.1),
        (GammaTransform(gamma, p_invert_image=0, synchronize_channels=False, p_per_channel=1, p_retain_stats=1), 0.3),
    ]
    random = [RandomTransform(change, apply_probability=share) for change, share in changes]
    return ComposeTransforms([spatial, *random, MirrorTransform(allowed_axes=tuple(range(len(patch))))])


def compare(patch: tuple[int, ...], channels: int, labels: int, rounds: int, samples: int) -> dict[str, Any]:
    """Median processor seconds of a sample on both sides, in turns, and the median of the ratios of the turns."""
    case = volume(channels, labels)
    sides = {"mskd": ours(case, patch), "batchgeneratorsv2": theirs(case, patch)}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for sample in sides.values():
        for index in range(3):
            sample(10_000 + index)
    for turn in range(rounds):
        for name, sample in sides.items():
            start = time.process_time()
            for index in range(samples):
                sample(turn * samples + index)
            spent[name].append((time.process_time() - start) / samples)
    ratios = [b / a for a, b in zip(spent["mskd"], spent["batchgeneratorsv2"], strict=True)]
    return {
        "milliseconds": {name: round(1000 * statistics.median(times), 2) for name, times in spent.items()},
        "times_faster": round(statistics.median(ratios), 2),
        "times_faster_range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=12, help="samples a turn")
    parser.add_argument("--keep-memory", action="store_true", help="tell glibc to keep freed memory, for both sides")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.keep_memory:
        keep_freed_memory()
    results = {}
    for name, (patch, channels, labels) in SHAPES.items():
        results[name] = compare(patch, channels, labels, options.rounds, options.samples)
        print(name, json.dumps(results[name]), flush=True)
    about = {
        "command": "python Testing/benchmarks/augmentation.py" + (" --keep-memory" if options.keep_memory else ""),
        "what": "processor time of one augmented sample in one thread, medians of interleaved turns",
        "rounds": options.rounds,
        "samples_a_round": options.samples,
        "kept_memory": options.keep_memory,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, no GPU",
        "versions": {name: version(name) for name in ("torch", "numpy", "batchgeneratorsv2")},
        "results": results,
    }
    options.output.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
