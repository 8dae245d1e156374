"""Makes the CT students that are timed: real architectures, seeded weights, plausible label maps, no training.

    python -m peers.students IMAGE --output FOLDER [--patch 128] [--seed 0]

Random weights alone would give one label everywhere, or noise, and what follows the network would be timed on
something no trained network gives. So the normalisation statistics are taken from the image, and the last layer is
the linear discriminant, on the random features, of fifteen layers of density."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
NEVER = -1e4
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
            Label(value=value, name=f"layer {value}", color=(17 * value, 200 - 10 * value, 100))
            for value in range(1, CLASSES)
        ),
        provenance=Provenance(method="random features, last layer fitted to one image", data="none"),
        licence="Apache-2.0",
        intended_use="Timing; it segments nothing of meaning.",
    )


def middle(volume: Tensor, side: int) -> Tensor:
    """The cube ``[C, s, s, s]`` in the middle of ``[C, z, y, x]``."""
    if min(volume.shape[1:]) < side:
        raise ValueError(f"the prepared image {tuple(volume.shape[1:])} is smaller than a patch of {side}")
    starts = [(size - side) // 2 for size in volume.shape[1:]]
    return volume[(slice(None), *(slice(start, start + side) for start in starts))]


def layers_of_density(crop: Tensor) -> Tensor:
    """Labels ``[z, y, x]``: the range of the smoothed ``[1, z, y, x]`` cut into equal layers."""
    smooth = F.avg_pool3d(crop[None], 5, stride=1, padding=2)[0, 0]
    edges = torch.linspace(float(smooth.min()), float(smooth.max()), CLASSES + 1)
    return torch.bucketize(smooth, edges[1:-1])


@torch.no_grad()
def fit(network: SegmentationNetwork, crop: Tensor) -> None:
    """Normalisation statistics and the last layer, from ``[1, z, y, x]``."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = None  # the plain average, here of one batch
    network.train()(crop[None])
    seen: list[Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.eval()(crop[None])
    handle.remove()
    features = seen[0][0].flatten(1).T.double()
    step = crop.shape[1] // seen[0].shape[2]
    labels = layers_of_density(crop)[::step, ::step, ::step].flatten()
    weight, bias = discriminant(features, labels)
    network.head.weight.copy_(weight[:, :, None, None, None])
    network.head.bias.copy_(bias)


def discriminant(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Linear discriminant of ``[N, F]``: weight ``[K, F]`` and bias ``[K]`` (Fisher 1936; one covariance for all).

    A label that the image does not have is never the largest.
    """
    absent = torch.bincount(labels, minlength=CLASSES) == 0
    means = torch.stack([features[labels == value].mean(0) for value in range(CLASSES)]).nan_to_num()
    within = features - means[labels]
    covariance = within.T @ within / len(within) + 1e-4 * torch.eye(features.shape[1])
    weight = torch.linalg.solve(covariance, means.T).T
    bias = (-0.5 * (weight * means).sum(1)).masked_fill(absent, NEVER)
    return weight.float(), bias.float()


def make_students(image: Image, folder: Path, patch: int, seed: int) -> None:
    """Write a package for each name in ``STUDENTS``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in STUDENTS:
        torch.manual_seed(seed)
        manifest = make_manifest(name, patch)
        network = build_network(manifest.network)
        crop = middle(torch.from_numpy(preprocess(image, manifest).array), patch)
        fit(network, crop)
        save_package(folder / name, manifest, network, overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make_students(read_image(options.image), options.output, options.patch, options.seed)


if __name__ == "__main__":
    main()
