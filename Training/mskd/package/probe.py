"""The probe: a small seeded input with the logits it gave when the package was made, to be replayed anywhere."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from mskd.errors import PackageError
from mskd.networks import SegmentationNetwork
from mskd.package.manifest import PROBE
from mskd.package.package import Package
from mskd.package.weights import unpack_tensors
from mskd.spec import Manifest

PROBE_SEED = 20240607
PROBE_SIDE = 16
LARGEST_PROBE = 1 << 24
TOLERANCE = 1e-3
"""Largest difference of a logit, as a share of the largest logit (or of 1)."""


@dataclass(frozen=True)
class VerifyReport:
    """What a replay of the probe showed.

    Args:
        files: Number of files whose hash is right.
        difference: Largest difference of a logit, divided by the largest logit or 1.
        tolerance: The largest ``difference`` that passes.
        voxels_equal: Share of probe voxels with the same label.
        milliseconds: Time of the replay.
    """

    files: int
    difference: float
    tolerance: float
    voxels_equal: float
    milliseconds: float

    @property
    def passed(self) -> bool:
        """Whether the network computes what it did when it was packed."""
        return self.difference <= self.tolerance


def make_probe(manifest: Manifest, network: SegmentationNetwork) -> dict[str, Tensor]:
    """``image`` [N, C, *spatial] and the ``logits`` the network (eval mode, CPU) gives for it."""
    sides = [
        -(-min(side, PROBE_SIDE) // step) * step for side, step in zip(manifest.patch, network.divisor, strict=True)
    ]
    generator = torch.Generator().manual_seed(PROBE_SEED)
    image = torch.randn(2 if manifest.dim == 2 else 1, len(manifest.channels), *sides, generator=generator)
    with torch.inference_mode():
        return {"image": image, "logits": network(image).clone()}


def verify_package(package: Package) -> VerifyReport:
    """Replay the probe (the hashes were checked when the package was opened).

    Raises:
        PackageError: the probe does not fit the manifest.
    """
    source = f"{package.path} ({PROBE})"
    probe = unpack_tensors(package.files[PROBE], source=source)
    if probe.keys() != {"image", "logits"} or probe["image"].numel() > LARGEST_PROBE:
        raise PackageError(f"{source}: must hold a small 'image' and its 'logits'; get the package again.")
    image, expected = probe["image"].float(), probe["logits"].float()
    manifest = package.manifest
    fits = image.ndim == manifest.dim + 2 and image.shape[1] == len(manifest.channels)
    if not fits or expected.shape != (image.shape[0], manifest.classes, *image.shape[2:]) or not image.numel():
        raise PackageError(f"{source}: image {tuple(image.shape)} and logits {tuple(expected.shape)} do not fit.")
    network = package.load_network()
    start = time.perf_counter()
    with torch.inference_mode():
        logits = network(image)
    milliseconds = 1000 * (time.perf_counter() - start)
    scale = max(1.0, float(expected.abs().max()))
    return VerifyReport(
        files=len(package.files),
        difference=float((logits - expected).abs().max()) / scale,
        tolerance=TOLERANCE,
        voxels_equal=float((logits.argmax(1) == expected.argmax(1)).float().mean()),
        milliseconds=milliseconds,
    )
