"""Whether speed cost accuracy: the engine's labels against those of plain windows, on images made for the model.

    python -m peers.guard PACKAGE IMAGE... --result JSON

Plain is what the model was validated with, and written with other people's code: float32, MONAI's sliding window of
the package's patch (or the image, along axes where that is smaller), half overlapping, Gaussian weights, the logits
interpolated to the image's grid as a whole."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from mskd.image import Image, read_image
from mskd.inference import Engine, Region, preprocess
from mskd.networks import SegmentationNetwork
from mskd.package import Package, open_package, save_package


def without_components(package: Package, folder: Path) -> Package:
    """The same model without largest-component clean-up, which could hide a difference, or blow one up."""
    manifest = package.manifest.model_copy(update={"largest_component": (), "files": {}})
    return save_package(folder / "model", manifest, package.load_network())


@torch.inference_mode()
def plain_labels(
    network: SegmentationNetwork, package: Package, image: Image, region: Region | None = None
) -> NDArray[np.uint8]:
    """Labels on the image's grid; 0 outside the prepared crop."""
    manifest = package.manifest
    prepared = preprocess(image, manifest, region)
    volume = torch.from_numpy(prepared.array)
    batch = volume.transpose(0, 1) if manifest.dim == 2 else volume[None]
    patch = [min(sides) for sides in zip(manifest.patch, batch.shape[2:], strict=True)]
    logits = sliding_window_inference(batch, patch, 1, network, overlap=0.5, mode="gaussian")
    logits = logits.transpose(0, 1)[None] if manifest.dim == 2 else logits
    labels = np.zeros(image.geometry.shape, np.uint8)
    full = F.interpolate(logits, size=prepared.grid.crop_shape, mode="trilinear", align_corners=False)
    prepared.grid.view(labels)[:] = full[0].argmax(0).to(torch.uint8).numpy()
    return labels


def dice(ours: NDArray[np.uint8], plain: NDArray[np.uint8], classes: int) -> list[float | None]:
    """Of each label but the background; None where neither has it."""
    found: list[float | None] = []
    for value in range(1, classes):
        first, second = ours == value, plain == value
        size = int(first.sum()) + int(second.sum())
        found.append(2 * int((first & second).sum()) / size if size else None)
    return found


def compare(path: Path, images: list[Path], **engine: Any) -> dict[str, Any]:
    """Mean and least Dice over labels and images of the engine's choice against plain windows."""
    with tempfile.TemporaryDirectory() as temporary:
        package = without_components(open_package(path), Path(temporary))
        runner, network = Engine(package, "cpu", **engine), package.load_network().eval()
        scores, plans = [], []
        for name in images:
            image = read_image(name)
            result = runner.run(image)
            plans.append(result.report["plan"])
            plain = plain_labels(network, package, image)
            scores += [
                value for value in dice(result.labels.array, plain, package.manifest.classes) if value is not None
            ]
        manifest = package.manifest
    return {
        "model": f"{manifest.name} {manifest.version}",
        "images": len(images),
        "mean_dice": float(np.mean(scores)),
        "least_dice": float(np.min(scores)),
        "whole_volumes": sum(bool(plan["whole"]) for plan in plans),
        "backend": result.report["backend"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--result", type=Path, required=True)
    options = parser.parse_args()
    options.result.write_text(json.dumps(compare(options.package, options.images)), encoding="utf-8")


if __name__ == "__main__":
    main()
