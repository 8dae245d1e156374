"""Augmented training samples per second on one core, beside nnU-Net's transforms with the same settings.

    pip install batchgeneratorsv2==0.3.6 acvl-utils scipy     # into an environment that runs mskd
    python Testing/benchmarks/augmentation.py

Both sides start from a whole case in memory and end with an augmented patch and its labels: cropping is measured too
(nnU-Net's is acvl_utils' ``crop_and_pad_nd``). The transforms, probabilities and ranges are those of
``nnUNetTrainer.get_training_transforms`` of nnU-Net 2.8.1, as are the angles and the larger patch that it cuts out
first. nnU-Net rotates and scales each with probability 0.2, here both are done with probability 0.36: as many samples
are interpolated. Rounds alternate between the two in one process, CPU time of the process is counted, and each case of
the table has a process of its own, with and without ``keep_freed_memory`` (for both sides).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Training"))

import numpy as np
import torch
import torch.nn.functional as F

from mskd.data.patches import PatchSampler, augment
from mskd.data.prepared import PreparedCase
from mskd.inference.environment import keep_freed_memory
from mskd.training.settings import AugmentationSettings

RESULTS = Path(__file__).resolve().parent / "results" / "speed"
PATCHES = ((128, 128, 128), (64, 192, 160), (256, 256), (512, 512))
CHANNELS = (1, 4)
LABELS = (3, 14)
SPATIAL = 1 - 0.8 * 0.8
BATCH = {2: 12, 3: 2}
SECONDS = {"round": 3.0, "rounds": 15}

Make = Callable[[int], object]


def angle_of(patch: tuple[int, ...]) -> float:
    """nnU-Net's largest rotation in degrees for isotropic voxels."""
    if len(patch) == 3:
        return 30.0
    return 15.0 if max(patch) / min(patch) > 1.5 else 180.0


def initial_patch(patch: tuple[int, ...]) -> tuple[int, ...]:
    """The patch that nnU-Net cuts out before it rotates: ``get_patch_size`` with the scale range (0.85, 1.25)."""
    angle = min(np.pi / 2, np.deg2rad(angle_of(patch)))
    corner = np.array(patch, float)
    largest = corner.copy()
    for first, second in itertools.combinations(range(len(patch)), 2):
        turn = np.eye(len(patch))
        turn[[first, second], [first, second]] = np.cos(angle)
        # the signs of acvl_utils' rotation matrices about x, y and z
        sign = -1.0 if (first, second) == (0, 2) else 1.0
        turn[first, second], turn[second, first] = -sign * np.sin(angle), sign * np.sin(angle)
        largest = np.maximum(largest, np.abs(corner @ turn))
    return tuple(int(side) for side in largest / 0.85)


def make_case(patch: tuple[int, ...], channels: int, labels: int) -> PreparedCase:
    """Smooth organs, most of it background, in a volume that holds the larger patch."""
    size = (8, *initial_patch(patch)) if len(patch) == 2 else initial_patch(patch)
    size = tuple(side + 20 if axis else side for axis, side in enumerate(size))
    generator = torch.Generator().manual_seed(0)
    fields = torch.rand((1, labels + 1, 4, 8, 8), generator=generator)
    fields[:, 0] += 0.35
    organs = F.interpolate(fields, size=size, mode="trilinear").argmax(1)[0].to(torch.uint8).numpy()
    image = np.random.default_rng(0).standard_normal((channels, *size), dtype=np.float32) + organs
    foreground = {value: np.argwhere(organs == value)[::100] for value in np.unique(organs).tolist() if value}
    return PreparedCase("case", image, organs, (1.0, 1.0, 1.0), foreground)


def ours(case: PreparedCase, patch: tuple[int, ...]) -> tuple[Make, Make]:
    """index -> batch from the case; index -> batch from crops that were drawn before."""
    settings = AugmentationSettings(
        spatial=SPATIAL,
        rotation=angle_of(patch),
        scale=(0.7, 1.4),
        mirror=("x", "y", "z"),
        noise=0.1,
        blur=0.2,
        brightness=0.15,
        contrast=0.15,
        low_resolution=0.25,
        gamma=0.3,
        gamma_inverted=0.1,
    )
    sampler = PatchSampler([case], patch, settings, 1 / 3, 0)
    size = range(BATCH[len(patch)])
    return lambda index: augment(sampler.draw(index, size)), lambda index: sampler.draw(index, size)


def theirs(case: PreparedCase, patch: tuple[int, ...]) -> tuple[Make, Make]:
    """index -> samples from the case; index -> samples cropped only."""
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

    transforms = nnunet_transforms(patch)
    initial, dim = initial_patch(patch), len(patch)
    rng = np.random.default_rng(0)
    labels = case.labels[None]  # type: ignore[index]

    def cropped() -> dict[str, torch.Tensor]:
        low = [int(rng.integers(0, side - want + 1)) for side, want in zip(labels.shape[-dim:], initial, strict=True)]
        box = [[first, first + want] for first, want in zip(low, initial, strict=True)]
        slices = [int(rng.integers(0, labels.shape[1]))] if dim == 2 else []
        image, mask = (part[:, slices[0]] if slices else part for part in (case.image, labels))
        return {
            "image": torch.from_numpy(crop_and_pad_nd(image, box, 0)).float(),
            "segmentation": torch.from_numpy(crop_and_pad_nd(mask, box, -1, cast_cropped_to=np.int16)).to(torch.int16),
        }

    def stacked(samples: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
        return [torch.stack([sample[key] for sample in samples]) for key in ("image", "segmentation")]

    size = range(BATCH[dim])
    return lambda _: stacked([transforms(**cropped()) for _ in size]), lambda _: [cropped() for _ in size]


def nnunet_transforms(patch: tuple[int, ...]) -> Callable[..., dict[str, torch.Tensor]]:
    """The default training transforms of nnU-Net 2.8.1 without deep supervision, its measured blur warmed up."""
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
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

    angle = np.deg2rad(angle_of(patch))
    blur = GaussianBlurTransform((0.5, 1.0), False, False, p_per_channel=0.5, benchmark=True)
    spatial = SpatialTransform(
        patch,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=0,
        p_rotation=0.2,
        rotation=(-angle, angle),
        p_scaling=0.2,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    factor, exponent = BGContrast((0.75, 1.25)), BGContrast((0.7, 1.5))
    low = SimulateLowResolutionTransform((0.5, 1), False, True, None, None, p_per_channel=0.5)
    for _ in range(20):
        blur(image=torch.rand(1, *patch))
    return ComposeTransforms(
        [
            spatial,
            RandomTransform(GaussianNoiseTransform((0, 0.1), 1, True), 0.1),
            RandomTransform(blur, 0.2),
            RandomTransform(MultiplicativeBrightnessTransform(factor, False, 1), 0.15),
            RandomTransform(ContrastTransform(factor, True, False, 1), 0.15),
            RandomTransform(low, 0.25),
            RandomTransform(GammaTransform(exponent, 1, False, 1, 1), 0.1),
            RandomTransform(GammaTransform(exponent, 0, False, 1, 1), 0.3),
            MirrorTransform(tuple(range(len(patch)))),
            RemoveLabelTansform(-1, 0),
        ]
    )


def compare(patch: tuple[int, ...], channels: int, labels: int, seconds: float, rounds: int) -> dict[str, Any]:
    """CPU milliseconds per sample of both sides, with cropping and of cropping alone, and the ratio of the rounds."""
    case = make_case(patch, channels, labels)
    np.random.seed(0)
    torch.manual_seed(0)
    sides = {"nnunet": theirs(case, patch), "mskd": ours(case, patch)}
    batches = {}
    for name, (whole, crop) in sides.items():
        for index in range(3):
            whole(1 << 30 | index), crop(1 << 30 | index)
        once = max(timed(whole, range(1 << 29, (1 << 29) + 6)) / 6, 1e-5)
        batches[name] = max(2, round(seconds / once))
    per_sample: dict[str, list[float]] = {key: [] for key in ("nnunet", "mskd", "nnunet_crop", "mskd_crop")}
    for turn in range(rounds):
        for name, (whole, crop) in sides.items():
            count = batches[name]
            scale = 1000 / BATCH[len(patch)]
            per_sample[name].append(scale * timed(whole, range(turn * count, (turn + 1) * count)) / count)
            per_sample[f"{name}_crop"].append(scale * timed(crop, range(turn * 3, turn * 3 + 3)) / 3)
    ratios = [a / b for a, b in zip(per_sample["nnunet"], per_sample["mskd"], strict=True)]
    return {
        "patch": patch,
        "channels": channels,
        "labels": labels,
        "milliseconds_per_sample": {name: round(median(values), 3) for name, values in per_sample.items()},
        "samples_per_round": {name: count * BATCH[len(patch)] for name, count in batches.items()},
        "ratio_median": round(median(ratios), 2),
        "ratio_smallest": round(min(ratios), 2),
        "ratio_largest": round(max(ratios), 2),
        "ratio_of_sums": round(sum(per_sample["nnunet"]) / sum(per_sample["mskd"]), 2),
    }


def timed(make: Make, indices: range) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    for index in indices:
        make(index)
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU time of one side in one round")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path, default=RESULTS / "augmentation.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        row = json.loads(options.one)
        if row.pop("keep_freed_memory"):
            keep_freed_memory()
        print(json.dumps(compare(**row, seconds=options.seconds, rounds=options.rounds)))
        return
    rows = []
    for patch, channels, labels, keep in itertools.product(PATCHES, CHANNELS, LABELS, (True, False)):
        row = {"patch": patch, "channels": channels, "labels": labels, "keep_freed_memory": keep}
        command = [sys.executable, __file__, "--seconds", str(options.seconds), "--rounds", str(options.rounds)]
        done = subprocess.run([*command, "--one", json.dumps(row)], check=True, capture_output=True, encoding="utf-8")
        rows.append({**row, **json.loads(done.stdout.splitlines()[-1])})
        print({key: value for key, value in rows[-1].items() if key != "samples_per_round"}, flush=True)
    write(options.output, rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """The table, and all that it depends on."""
    libraries = ("torch", "numpy", "batchgeneratorsv2", "acvl-utils", "mskd")
    result = {
        "schema": "mskd-speed",
        "command": " ".join(["python", "Testing/benchmarks/augmentation.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {"python": sys.version.split()[0], **{name: installed(name) for name in libraries}},
        "threads": 1,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def installed(name: str) -> str:
    import mskd

    return mskd.__version__ if name == "mskd" else version(name)


if __name__ == "__main__":
    main()
