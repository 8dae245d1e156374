"""Makes the CT students that are timed: real architectures, a minute of training, label maps of plausible shapes.

    python -m peers.students IMAGE --output FOLDER [--patch 128] [--seed 0] [--steps 100]

Random weights would give one label everywhere, or noise, and what follows the network would be timed on something no
trained network gives. So they learn to tell the tissues of the image apart: air, lung, fat, soft tissue and bone, by
the mean density around a voxel. The other labels are computed as all are, and win nowhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mskd.image import Image, read_image
from mskd.inference import preprocess
from mskd.networks import SegmentationNetwork, build_network
from mskd.package import save_package
from mskd.spec import Channel, Label, Manifest, NetworkSpec, Normalization, Provenance

CLASSES = 15
CHANNELS = [16, 32, 64, 128]
STUDENTS = {"light": 1, "strided": 2}
"""Name -> stride of the stem."""

SPACING = 1.5
EDGES_HU = (-800.0, -250.0, -20.0, 150.0)
"""Between air, lung, fat, soft tissue and bone."""

STEPS, CROP = 100, 64
RATE = 0.02
NORMALIZATION = Normalization(name="clip_zscore", lower=-1000.0, upper=1000.0, mean=0.0, std=300.0)


def make_manifest(name: str, patch: int) -> Manifest:
    """A CT model of 14 labels at 1.5 mm."""
    stem = STUDENTS[name]
    strides = [[stem] * 3, *([2] * 3 for _ in CHANNELS[1:])]
    arguments = {"dim": 3, "in_channels": 1, "classes": CLASSES, "channels": CHANNELS, "separable": True}
    return Manifest(
        name=f"benchmark-{name}",
        title=f"Benchmark student ({name})",
        network=NetworkSpec(name="light_unet", arguments={**arguments, "strides": strides}),
        channels=(Channel(name="CT", modality="CT"),),
        spacing=(SPACING,) * 3,
        normalization=NORMALIZATION,
        patch=(patch,) * 3,
        labels=tuple(
            Label(value=value, name=f"tissue {value}", color=(17 * value, 200 - 10 * value, 100))
            for value in range(1, CLASSES)
        ),
        provenance=Provenance(method="tissues of one image, by density", data="none"),
        licence="Apache-2.0",
        intended_use="Timing; it segments nothing of meaning.",
    )


def tissues(volume: Tensor, edges: Sequence[float]) -> Tensor:
    """Labels ``[z, y, x]`` of a prepared volume ``[1, z, y, x]``, by the mean density around a voxel."""
    for _ in range(2):
        volume = F.avg_pool3d(volume, 5, stride=1, padding=2, count_include_pad=False)
    return torch.bucketize(volume[0], torch.tensor(edges) / NORMALIZATION.std)


def fit(network: SegmentationNetwork, volume: Tensor, labels: Tensor, steps: int) -> None:
    """Train on random cubes of ``[1, z, y, x]`` and ``[z, y, x]``, one a step."""
    side = min(CROP, *volume.shape[1:])
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    network.train()
    for _ in range(steps):
        starts = [int(torch.randint(size - side + 1, ())) for size in volume.shape[1:]]
        z, y, x = (slice(start, start + side) for start in starts)
        loss = F.cross_entropy(network(volume[None, :, z, y, x]), labels[None, z, y, x])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    network.eval()


def make_students(
    image: Image, folder: Path, patch: int, seed: int, steps: int = STEPS, edges: Sequence[float] = EDGES_HU
) -> None:
    """Write a package for each name in ``STUDENTS``, which tells apart what lies between ``edges`` in HU."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in STUDENTS:
        torch.manual_seed(seed)
        manifest = make_manifest(name, patch)
        network = build_network(manifest.network)
        volume = torch.from_numpy(preprocess(image, manifest).array)
        fit(network, volume, tissues(volume, edges), steps)
        save_package(folder / name, manifest, network, overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    make_students(read_image(options.image), options.output, options.patch, options.seed, options.steps)


if __name__ == "__main__":
    main()
