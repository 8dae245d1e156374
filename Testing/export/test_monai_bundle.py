"""MONAI runs the bundle, from image files to the labels that the engine gives, on the image's own grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.export import export_package
from mskd.image import read_image
from mskd.inference import Engine

THRESHOLDS = (10.5, 20.5, 30.5)
TURNED = (0, 0, 1, -1, 0, 0, 0, -1, 0)


@pytest.fixture
def run_bundle(tmp_path: Path) -> Callable[[Path], None]:
    """Runs a bundle over the images in ``tmp_path / images`` as ``python -m monai.bundle run`` does."""
    bundle = pytest.importorskip("monai.bundle")
    pytest.importorskip("nibabel")

    def run(folder: Path) -> None:
        bundle.run(
            config_file=str(folder / "configs" / "inference.json"),
            bundle_root=str(folder),
            dataset_dir=str(tmp_path / "images"),
            output_dir=str(tmp_path / "labels"),
        )

    return run


def write_image(path: Path, size: tuple[int, int, int], seed: int = 0, **geometry: Any) -> None:
    """Random whole numbers 1 to 40 as a NIfTI file."""
    voxels = np.random.default_rng(seed).integers(1, 41, size).astype(np.float32)
    image = sitk.GetImageFromArray(voxels)
    for what, value in geometry.items():
        getattr(image, f"Set{what}")(value)
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAR"])
def test_monai_gives_the_labels_of_the_engine(
    threshold_package: Callable[..., Any],
    run_bundle: Callable[[Path], None],
    tmp_path: Path,
    orientation: str,
    dim: int,
) -> None:
    package = threshold_package(THRESHOLDS, dim, orientation=orientation, largest_component=("above 3",))
    export_package(package, "monai-bundle", tmp_path / "bundle")
    write_image(tmp_path / "images" / "plain.nii.gz", (20, 24, 22), 1, Spacing=(1.0, 1.5, 3.0), Origin=(5, -6, 7))
    write_image(tmp_path / "images" / "turned.nii.gz", (18, 25, 21), 2, Direction=TURNED)
    run_bundle(tmp_path / "bundle")
    engine = Engine(package, "cpu")
    for name in ("plain", "turned"):
        image = tmp_path / "images" / f"{name}.nii.gz"
        theirs = sitk.ReadImage(str(tmp_path / "labels" / f"{name}_seg.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), engine.run(read_image(image)).labels.array)
        ours = sitk.ReadImage(str(image))
        np.testing.assert_allclose(theirs.GetDirection(), ours.GetDirection(), atol=1e-5)
        np.testing.assert_allclose(theirs.GetOrigin(), ours.GetOrigin(), atol=1e-4)


def test_several_channels_and_clipped_intensities(
    threshold_package: Callable[..., Any], run_bundle: Callable[[Path], None], tmp_path: Path
) -> None:
    from mskd.spec import Normalization

    rule = Normalization(name="clip_zscore", lower=5.0, upper=30.0, mean=5.0, std=1.0)
    package = threshold_package(THRESHOLDS, 3, 2, normalization=rule)
    export_package(package, "monai-bundle", tmp_path / "bundle")
    files = [tmp_path / "images" / f"case_{index:04d}.nii.gz" for index in range(2)]
    for seed, file in enumerate(files):
        write_image(file, (17, 18, 19), seed)
    run_bundle(tmp_path / "bundle")
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labels" / "case_0000_seg.nii.gz")))
    ours = Engine(package, "cpu").run(read_image(files)).labels.array
    assert set(np.unique(ours)) == {0, 1, 2}  # clipped: the third threshold is out of reach
    np.testing.assert_array_equal(theirs, ours)


def test_the_layout_is_that_of_a_bundle(threshold_package: Callable[..., Any], tmp_path: Path) -> None:
    package = threshold_package((0.5,), 2, spacing=(None, 1.0, 2.0), licence="CC0")
    export_package(package, "monai-bundle", tmp_path / "bundle")
    files = {str(path.relative_to(tmp_path / "bundle")) for path in (tmp_path / "bundle").rglob("*") if path.is_file()}
    assert files - {".mskd-export"} == {
        "configs/inference.json",
        "configs/metadata.json",
        "models/model.ts",
        "docs/README.md",
        "LICENSE",
    }
    metadata = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert {"version", "monai_version", "pytorch_version", "numpy_version", "task", "copyright"} <= metadata.keys()
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "above 1"}
    steps = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())["preprocessing"]["transforms"]
    assert steps[3]["pixdim"] == [2.0, 1.0, -1.0]
    assert "CC0" in (tmp_path / "bundle" / "LICENSE").read_text()


def test_resampled_zscored_images_agree(
    threshold_package: Callable[..., Any], run_bundle: Callable[[Path], None], tmp_path: Path
) -> None:
    """Kernels differ, so only the bulk must agree; a swapped axis or spacing would not get near."""
    from mskd.spec import Normalization

    package = threshold_package((0.5,), spacing=(2.0, 1.0, 1.5), normalization=Normalization(name="zscore"))
    export_package(package, "monai-bundle", tmp_path / "bundle")
    z, y, x = np.mgrid[:24, :40, :30]
    ball = ((z - 9) / 6) ** 2 + ((y - 25) / 11) ** 2 + ((x - 12) / 7) ** 2 < 1
    image = sitk.GetImageFromArray(ball.astype(np.float32))
    image.SetSpacing((1.0, 1.3, 2.5))
    (tmp_path / "images").mkdir()
    sitk.WriteImage(image, str(tmp_path / "images" / "ball.nii.gz"))
    run_bundle(tmp_path / "bundle")
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labels" / "ball_seg.nii.gz")))
    ours = Engine(package, "cpu").run(read_image(tmp_path / "images" / "ball.nii.gz")).labels.array
    for found, truth, least in ((theirs, ours, 0.9), (theirs, ball, 0.85)):  # it lies below half, so ours is larger
        assert 2 * np.sum((found == 1) & (truth == 1)) / (np.sum(found == 1) + np.sum(truth == 1)) > least
