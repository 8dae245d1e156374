"""An image unlike the training data is told so, in a sentence for each way; one like them is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mskd.data import open_dataset
from mskd.data.prepared import read_case
from mskd.image import Geometry, Image, read_image
from mskd.inference import Engine, Region, make_grid
from mskd.inference.familiar import image_facts, summarise, warnings
from mskd.package import open_package
from mskd.spec import Manifest, Normalization

SHAPE = (40, 60, 60)
CT = Normalization(name="clip_zscore", lower=-1000.0, upper=1000.0, mean=0.0, std=200.0)
COS, SIN = np.cos(0.5), np.sin(0.5)


def body(seed: int = 0, shape: tuple[int, int, int] = SHAPE, **geometry: Any) -> Image:
    """Soft tissue around 40 HU in air."""
    rng = np.random.default_rng(seed)
    voxels = np.full(shape, -1000.0)
    inner = tuple(slice(side // 5, -(side // 5)) for side in shape)
    voxels[inner] = rng.normal(40, 30, voxels[inner].shape)
    return Image(voxels[None].astype(np.float32), Geometry(shape, geometry.pop("spacing", (2.0, 1.0, 1.0)), **geometry))


@pytest.fixture(scope="module")
def package(threshold_package: Callable[..., Any]) -> Any:
    facts = [image_facts(body(seed), threshold_package((0.5,)).manifest) for seed in range(8)]
    return threshold_package((0.5,), patch=(16, 16, 16), normalization=CT, training_data=summarise(facts))


def told(manifest: Manifest, image: Image, region: Region | None = None) -> list[str]:
    return warnings(manifest, image, make_grid(image.geometry, manifest, region), region)


def test_an_image_like_the_training_images_is_none(package: Any) -> None:
    assert told(package.manifest, body(99)) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"spacing": (5.0, 1.0, 1.0), "shape": (16, 60, 60)}, "The voxels are 5 x 1 x 1 mm"),
        ({"shape": (80, 60, 60)}, "The image covers 160 x 60 x 60 mm"),
        ({"shape": (10, 60, 60)}, "cut off"),
        ({"direction": (COS, SIN, 0, -SIN, COS, 0, 0, 0, 1)}, "tilted by 29 degrees"),
        ({"direction": (1, 0, 0, 0, 1, 0, 0, 0, -1)}, "left-handed"),
    ],
)
def test_each_way_to_differ_has_its_sentence(package: Any, change: dict, word: str) -> None:
    sentences = told(package.manifest, body(99, **change))
    assert len(sentences) == 1
    assert word in sentences[0]


def test_intensities_in_another_unit(package: Any) -> None:
    image = body(99)
    sentences = told(package.manifest, Image(image.array + 1024, image.geometry))
    assert len(sentences) == 1
    assert "right unit" in sentences[0]


def test_the_order_of_the_axes_is_no_surprise(package: Any) -> None:
    image = body(99)
    turned = np.ascontiguousarray(image.array.transpose(0, 3, 1, 2))
    # x of the file runs along y of the patient, y along z, z along x: right-handed, and turned back exactly.
    geometry = Geometry((60, 40, 60), (1.0, 2.0, 1.0), direction=(0, 0, 1, 1, 0, 0, 0, 1, 0))
    assert told(package.manifest, Image(turned, geometry)) == []


def test_a_region_of_a_window_is_not_too_small_and_its_surroundings_count(package: Any) -> None:
    image = body(99)
    x, y, z = image.geometry.point((20.0, 30.0, 30.0))
    region = Region((-x - 12, -y - 12, z - 24), (-x + 12, -y + 12, z + 24))
    assert told(package.manifest, image, region) == []
    tiny = Region((-x - 1, -y - 1, z - 1), (-x + 1, -y + 1, z + 1))
    assert "The region of interest" in told(package.manifest, image, tiny)[0]


def test_the_report_has_them_and_old_packages_have_none(package: Any, threshold_package: Callable[..., Any]) -> None:
    image = body(99, spacing=(5.0, 1.0, 1.0), shape=(16, 60, 60))
    assert len(Engine(package, "cpu").run(image).report["warnings"]) == 1
    assert Engine(threshold_package((0.5,)), "cpu").run(image).report["warnings"] == []


@pytest.mark.real_data
def test_the_bundled_model_knows_its_own_crops_from_a_ct(real_data_folder: Path) -> None:
    manifest = open_package("hippocampus-mr").manifest
    dataset = open_dataset(real_data_folder / "Task04_Hippocampus")
    warned = [case.id for case in dataset.labelled if told(manifest, read_case(dataset, case)[0])]
    assert len(warned) <= len(dataset.labelled) // 50
    sentences = told(manifest, read_image(real_data_folder / "volumes" / "body_ct_3mm.nii.gz"))
    assert len(sentences) == 3
    assert any("intensities" in sentence for sentence in sentences)
