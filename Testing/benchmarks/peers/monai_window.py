"""MONAI as a contender: the transforms and the sliding window of its bundles around a student of ours.

    python -m peers.monai_window IMAGE --package PACKAGE --output FILE --result JSON [--nearest]

The logits go back to the image's grid by ``Invertd`` and are interpolated there, then the largest wins, as in MONAI's
bundles for CT. ``--nearest`` takes the largest first and inverts labels: quicker, smaller, and coarser at the
borders."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SlidingWindowInfererAdapt
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    SaveImaged,
    ScaleIntensityRanged,
    Spacingd,
)
from torch import nn
from torch.nn.modules.conv import _ConvNd

from mskd.networks import SegmentationNetwork, count_parameters
from mskd.package import open_package
from peers.clock import Clock, write_result


def preparation(manifest: Any) -> Compose:
    """From a loaded image to the network's input. MONAI's axes are x, y, z."""
    rule = manifest.normalization
    steps: list[Any] = [
        Orientationd("image", axcodes=manifest.orientation),
        # float64, the default, would double time and memory here and in the inverse.
        Spacingd("image", pixdim=manifest.spacing[::-1], mode="bilinear", dtype=torch.float32),
    ]
    if rule.name == "clip_zscore":
        low, high = ((limit - rule.mean) / rule.std for limit in (rule.lower, rule.upper))
        steps.append(ScaleIntensityRanged("image", rule.lower, rule.upper, low, high, clip=True))
    elif rule.name == "zscore":
        steps.append(NormalizeIntensityd("image"))
    return Compose(steps)


def restoration(prepared: Compose, *, nearest: bool) -> Compose:
    """From logits to labels on the image's grid."""
    invert = Invertd("labels", prepared, orig_keys="image", nearest_interp=nearest, to_tensor=True)
    largest = AsDiscreted("labels", argmax=True)
    return Compose([largest, invert] if nearest else [invert, largest])


@torch.inference_mode()
def segment(
    network: SegmentationNetwork,
    manifest: Any,
    image: Path,
    output: Path,
    *,
    nearest: bool = False,
    device: str = "cpu",
) -> Clock:
    """From a file to a labels file, timed by phase. On a GPU all but files is there, the network in half precision."""
    clock, on_gpu = Clock(), device != "cpu"
    prepared = preparation(manifest)
    inferer = SlidingWindowInfererAdapt(
        roi_size=tuple(manifest.patch[::-1]), sw_batch_size=4 if on_gpu else 1, overlap=0.5, mode="gaussian"
    )

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        with clock.phase(name):
            yield
            if on_gpu:
                torch.cuda.synchronize()

    with phase("read"):
        data = Compose([LoadImaged("image"), EnsureChannelFirstd("image")])({"image": str(image)})
    with phase("prepare"):
        data = prepared(EnsureTyped("image", device=torch.device(device))(data) if on_gpu else data)
    with phase("network"), torch.autocast("cuda", torch.float16, enabled=on_gpu):
        data["labels"] = inferer(data["image"][None], network)[0]
    with phase("restore"):
        data = restoration(prepared, nearest=nearest)(data)
    with phase("write"):
        save(data["labels"], output)
    return clock


def run(options: argparse.Namespace) -> None:
    """One run on a processor; writes what it took."""
    package = open_package(options.package)
    network = turned(package.load_network().eval())
    clock = segment(network, package.manifest, options.image, options.output, nearest=options.nearest)
    patch = list(package.manifest.patch)
    write_result(options.result, clock, network={"parameters": count_parameters(network), "patch": patch})


def turned(network: SegmentationNetwork) -> SegmentationNetwork:
    """The same network for images ``[N, C, x, y, z]``, so that no axes need to change places while it is timed."""
    if len(set(network.divisor)) > 1:
        raise ValueError("a network with different strides along its axes cannot be turned")
    for module in network.modules():
        if isinstance(module, _ConvNd):
            module.weight = nn.Parameter(module.weight.detach().permute(0, 1, 4, 3, 2).contiguous())
    return network


def save(labels: torch.Tensor, output: Path) -> None:
    """Write with MONAI, which names the file as the image."""
    folder = output.parent / "monai"
    SaveImaged(
        "labels",
        output_dir=folder,
        output_postfix="",
        output_dtype="uint8",
        resample=False,
        separate_folder=False,
        print_log=False,
    )({"labels": labels})
    next(folder.iterdir()).replace(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--nearest", action="store_true")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
