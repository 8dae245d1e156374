"""A MONAI bundle: a folder that ``python -m monai.bundle run`` segments with, from image files to label files."""

from __future__ import annotations

import json
from importlib import metadata as installed
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mskd.export.base import FORMATS, Forward
from mskd.export.metadata import KEY, metadata
from mskd.export.torchscript import load_trace, save_trace
from mskd.inference.traced import trace
from mskd.package import Package
from mskd.package.manifest import CARD
from mskd.spec import Manifest, Normalization

MODEL = "models/model.ts"
OLDEST_MONAI = "1.4.0"
OVERLAP = 0.5
IMAGE = {"keys": "image"}

README = """
## Run

`pip install monai nibabel fire scikit-image`, and in this folder

```
python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir IMAGES --output_dir LABELS
```

`IMAGES` is a folder of `.nii.gz` files, one a case{channels}. `models/model.ts` takes and gives tensors of any size,
`[N, C, x, y{z}]`.
"""
CHANNELS = (
    ", or for the {count} channels of one case files of one name that end in `_0000.nii.gz`, `_0001.nii.gz` and so on"
)


@FORMATS.register("monai-bundle")
class MonaiBundle:
    """The traced network in MONAI's axes, with preparation, windows and restoration spelt as MONAI's transforms."""

    suffix: ClassVar[str] = ""

    @classmethod
    def available(cls) -> str | None:
        return None  # MONAI runs a bundle; to write one is to write JSON

    def write(self, package: Package, target: Path) -> None:
        for folder in ("configs", "models", "docs"):
            (target / folder).mkdir()
        save_trace(trace(package.load_network(), reverse=True), package, target / MODEL)
        manifest = package.manifest
        _write_json(target / "configs" / "inference.json", inference(manifest))
        _write_json(target / "configs" / "metadata.json", describe(package))
        (target / "docs" / "README.md").write_text(package.files[CARD].decode() + _readme(manifest), encoding="utf-8")
        (target / "LICENSE").write_text(manifest.licence + "\n", encoding="utf-8")

    def load(self, target: Path) -> Forward:
        forward = load_trace(target / MODEL)

        def in_our_axes(image: Tensor) -> Tensor:
            order = [0, 1, *range(image.ndim - 1, 1, -1)]
            return forward(image.permute(order)).permute(order)

        return in_our_axes


def inference(manifest: Manifest) -> dict[str, Any]:
    """``configs/inference.json``."""
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "images": _images(len(manifest.channels)),
        "network": f"$torch.jit.load(@bundle_root + '/{MODEL}', map_location=@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _preparation(manifest)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': image} for image in @images]",
            "transform": "@preprocessing",
        },
        "inferer": _inferer(manifest),
        "postprocessing": {"_target_": "Compose", "transforms": _restoration(manifest)},
        "predict": "$lambda case: {**case, 'pred': @inferer(case['image'][None].to(@device), @network)[0]}",
        "run": ["$[@postprocessing(@predict(case)) for case in @dataset]"],
    }


def describe(package: Package) -> dict[str, Any]:
    """``configs/metadata.json`` in MONAI's schema, and our own metadata under ``mskd``."""
    manifest = package.manifest
    common = {"type": "image", "dtype": "float32", "spatial_shape": ["*"] * manifest.dim, "is_patch_data": True}
    labels = {"0": "background", **{str(label.value): label.name for label in manifest.labels}}
    channels = {str(index): channel.name for index, channel in enumerate(manifest.channels)}
    image = {
        **common,
        "format": "magnitude",
        "modality": ", ".join(dict.fromkeys(channel.modality for channel in manifest.channels)),
        "num_channels": len(channels),
        "value_range": [],
        "channel_def": channels,
    }
    pred = {**common, "format": "segmentation", "num_channels": len(labels), "value_range": [], "channel_def": labels}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": manifest.version,
        "changelog": {manifest.version: "Exported from a model package."},
        "monai_version": _version("monai", OLDEST_MONAI),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": _version("nibabel", "5.0.0")},
        "name": manifest.title,
        "task": "segmentation",
        "description": manifest.description or manifest.title,
        "authors": manifest.citation or "not given",
        "copyright": manifest.licence,
        "intended_use": manifest.intended_use,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        KEY: metadata(package),
    }


def _images(channels: int) -> str:
    """Expression for the files of each case, the channels of one case together."""
    if channels == 1:
        return "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))"
    first = "sorted(glob.glob(@dataset_dir + '/*_0000.nii.gz'))"
    return f"$[[name[:-11] + '%04d.nii.gz' % index for index in range({channels})] for name in {first}]"


def _preparation(manifest: Manifest) -> list[dict[str, Any]]:
    spacing = [step if step is not None else -1.0 for step in reversed(manifest.spacing)]  # -1: as it is
    return [
        {"_target_": "LoadImaged", **IMAGE},
        {"_target_": "EnsureChannelFirstd", **IMAGE},
        {"_target_": "Orientationd", **IMAGE, "axcodes": manifest.orientation},
        {"_target_": "Spacingd", **IMAGE, "pixdim": spacing, "mode": "bilinear"},
        *_normalisation(manifest.normalization),
    ]


def _normalisation(rule: Normalization) -> list[dict[str, Any]]:
    if rule.name == "zscore":
        return [{"_target_": "NormalizeIntensityd", **IMAGE, "channel_wise": True}]
    if rule.name == "none":
        return []
    clip = {"_target_": "ThresholdIntensityd", **IMAGE}
    return [
        {**clip, "threshold": rule.upper, "above": False, "cval": rule.upper},
        {**clip, "threshold": rule.lower, "above": True, "cval": rule.lower},
        {"_target_": "NormalizeIntensityd", **IMAGE, "subtrahend": rule.mean, "divisor": rule.std},
    ]


def _inferer(manifest: Manifest) -> dict[str, Any]:
    windows = {
        "roi_size": list(reversed(manifest.patch)),
        "sw_batch_size": 1,
        "overlap": OVERLAP,
        "mode": "gaussian",
    }
    if manifest.dim == 2:
        return {"_target_": "SliceInferer", "spatial_dim": 2, **windows}
    return {"_target_": "SlidingWindowInferer", **windows}


def _restoration(manifest: Manifest) -> list[dict[str, Any]]:
    pred = {"keys": "pred"}
    back = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False, "to_tensor": True}
    # Logits go back to the image's grid, as in the engine: labels would come back in steps.
    steps: list[dict[str, Any]] = [
        {"_target_": "Invertd", **pred, **back},
        {"_target_": "AsDiscreted", **pred, "argmax": True},
    ]
    largest = [label.value for label in manifest.labels if label.name in manifest.largest_component]
    if largest:
        # Voxels that share a face, each label by itself, as the engine has it.
        components = {"applied_labels": largest, "is_onehot": False, "independent": True, "connectivity": 1}
        steps.append({"_target_": "KeepLargestConnectedComponentd", **pred, **components})
    saved = {"output_dir": "@output_dir", "output_postfix": "seg", "separate_folder": False, "output_dtype": "uint8"}
    return [*steps, {"_target_": "SaveImaged", **pred, **saved, "resample": False}]


def _readme(manifest: Manifest) -> str:
    count = len(manifest.channels)
    channels = CHANNELS.format(count=count) if count > 1 else ""
    return README.format(channels=channels, z=", z" if manifest.dim == 3 else "")


def _version(package: str, otherwise: str) -> str:
    try:
        return installed.version(package)
    except installed.PackageNotFoundError:
        return otherwise


def _write_json(target: Path, value: dict[str, Any]) -> None:
    target.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
