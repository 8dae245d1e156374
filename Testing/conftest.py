"""Finds the package in the checkout, so that the tests run what lies here and not what is installed."""

from __future__ import annotations

import json
import locale
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Training"))


@pytest.fixture(scope="session", autouse=True)
def _measurements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured of this machine is kept for the session, and not in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSKD_CACHE", str(tmp_path_factory.mktemp("measured")))
        yield


@pytest.fixture(autouse=True)
def _locale() -> Iterator[None]:
    """Writing DICOM leaves a process in the locale C, where libraries that name no encoding take text for ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data_folder(root: Path) -> Path:
    """Where the real data sets lie; a test that needs them skips, visibly, where they are absent."""
    folder = root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}")
    return folder


@pytest.fixture
def tiny_dataset(tmp_path: Path) -> Path:
    """Ten noisy 12 x 14 x 16 volumes with a bright and a dark block, in the Decathlon's layout."""
    folder = tmp_path / "tiny"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    rng = np.random.default_rng(0)
    entries = []
    for index in range(10):
        labels = np.zeros((12, 14, 16), np.uint8)
        z, y, x = rng.integers(1, 4, 3)
        labels[z : z + 5, y : y + 5, x : x + 5] = 1
        labels[z + 2 : z + 7, y + 5 : y + 9, x + 5 : x + 10] = 2
        image = np.choose(labels, [0.0, 100.0, -100.0]) + rng.normal(0, 10, labels.shape)
        for kind, array in (("images", image.astype(np.float32)), ("labels", labels)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{kind}Tr" / f"case_{index}.nii.gz"))
        entries.append({"image": f"./imagesTr/case_{index}.nii.gz", "label": f"./labelsTr/case_{index}.nii.gz"})
    description = {
        "name": "tiny",
        "licence": "CC0",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "bright", "2": "dark"},
        "training": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


TINY_RECIPE = """
name = "tiny"
[input]
spacing = [1.0, 1.0, 1.0]
normalization = { name = "zscore" }
patch = [16, 16, 16]
[split]
validation = 0.2
test = 0.2
[teacher]
network = "residual_unet"
arguments = { channels = [8, 16] }
optimization = { steps = 40, batch = 2, learning_rate = 0.02, validate_every = 20, precision = "fp32" }
[student]
network = "light_unet"
arguments = { channels = [4, 8] }
optimization = { steps = 6, batch = 2, learning_rate = 0.01, validate_every = 3, precision = "fp32" }
[distillation]
terms = { kd = {}, ffd = {}, rgd = {} }
[package]
title = "Tiny"
"""


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """A recipe for ``tiny_dataset``: the teacher learns it in seconds, the student takes six steps."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def threshold_network() -> Callable[..., tuple[Any, Any]]:
    """Makes (manifest, light U-Net) whose label is the number of thresholds below a voxel's (positive) value.

    The weights pass the first channel through unchanged, so the true answer of the whole engine is known exactly.
    """
    import torch

    from mskd.networks import build_network
    from mskd.spec import Channel, Label, Manifest, NetworkSpec, Normalization, Provenance

    def make(thresholds: tuple[float, ...] = (0.5,), dim: int = 3, channels: int = 1, **changes: Any) -> Any:
        arguments = {"dim": dim, "in_channels": channels, "classes": len(thresholds) + 1, "channels": [2, 4]}
        colours = [(40 * index % 256, 100, 200) for index in range(1, len(thresholds) + 1)]
        fields: dict[str, Any] = {
            "name": "threshold",
            "title": "Counts thresholds",
            "network": NetworkSpec(name="light_unet", arguments=arguments),
            "channels": tuple(Channel(name=f"channel {index}", modality="CT") for index in range(channels)),
            "spacing": (None, None, None),
            "normalization": Normalization(name="none"),
            "patch": (16,) * dim,
            "labels": tuple(Label(value=i + 1, name=f"above {i + 1}", color=c) for i, c in enumerate(colours)),
            "provenance": Provenance(method="by hand", data="none"),
            "licence": "Apache-2.0",
            "intended_use": "Tests.",
        }
        manifest = Manifest(**{**fields, **changes})
        network = build_network(manifest.network).eval()
        middle = (1,) * dim
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.ConvTranspose2d)):
                    module.weight.zero_()
            for stage, source in ((network.encoder[0], 0), (network.decoder[0], 2)):
                for block in stage:
                    block[0].weight[(0, source, *middle)] = 1.0
                    source = 0
            for value in range(len(thresholds) + 1):
                network.head.weight[value, 0] = float(value)
                network.head.bias[value] = -sum(thresholds[:value])
        return manifest, network

    return make


@pytest.fixture(scope="session")
def threshold_package(tmp_path_factory: pytest.TempPathFactory, threshold_network: Any) -> Callable[..., Any]:
    """Makes an opened package of :func:`threshold_network`."""
    from mskd.package import save_package

    def make(*arguments: Any, **changes: Any) -> Any:
        return save_package(tmp_path_factory.mktemp("package") / "model", *threshold_network(*arguments, **changes))

    return make


@contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """``with full_disk(n):`` no file may grow beyond ``n`` bytes, as on a disk that is full.

    Hold it around the call alone: pytest's own output may be a file too.
    """
    return _files_up_to
