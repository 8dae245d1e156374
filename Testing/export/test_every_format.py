"""Every format gives PyTorch's logits for any size, says what the network is, and is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mskd.errors import InputError, PackageError, SettingsError
from mskd.export import FORMATS, export_package
from mskd.export import run as export_run

VARIANTS = ("separable", "stem that strides", "residual, instance norm")
TOLERANCE = 1e-4


@pytest.fixture(params=FORMATS.names())
def name(request: pytest.FixtureRequest) -> str:
    missing = FORMATS[request.param].available()
    if missing is not None:
        pytest.skip(f"{request.param}: {missing}")
    return request.param


def place(folder: Path, name: str) -> Path:
    return folder / f"exported{FORMATS[name].suffix}"


def contents(path: Path) -> dict[str, bytes]:
    """Every file at or below a path."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return {str(one.relative_to(path)): one.read_bytes() for one in files}


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_size_gives_the_logits_of_pytorch(
    name: str, variant: str, dim: int, random_package: Callable[..., Any], tmp_path: Path
) -> None:
    package, output = random_package(variant, dim), place(tmp_path, name)
    report = export_package(package, name, output)
    assert report.difference < TOLERANCE
    assert report.voxels_equal > 0.999
    assert len(report.sizes) == 5
    network, forward = package.load_network(), FORMATS[name]().load(output)
    for shape in ((1, 2, 23, 9, 14), (2, 2, 8, 30, 5), (1, 2, 1, 1, 1)):
        image = torch.randn(shape[: dim + 2])
        with torch.inference_mode():
            torch.testing.assert_close(forward(image), network(image), rtol=TOLERANCE, atol=TOLERANCE)


def test_a_label_that_vanishes_is_told(threshold_package: Callable[..., Any]) -> None:
    """However few voxels it has."""
    package = threshold_package((0.5, 1.5))
    image = torch.zeros(1, 1, 20, 20, 20)
    image[..., :10] = 1.0
    image[0, 0, 3, 3, 3] = 2.0
    network = package.load_network()

    def forgetful(image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits = network(image)
        logits[:, 2] = -1e3
        return logits

    report = export_run.compare(forgetful, package, [image])
    assert (report.worst_label, report.worst_dice) == (2, 0.0)
    assert report.voxels_equal == 1 - 1 / 8000


def read_metadata(name: str, output: Path) -> Any:
    """As a user of the format would find them."""
    if name == "onnx":
        import onnx

        return json.loads({prop.key: prop.value for prop in onnx.load(output).metadata_props}["mskd"])
    if name == "torchscript":
        extra = {"mskd.json": ""}
        torch.jit.load(str(output), _extra_files=extra)
        return json.loads(extra["mskd.json"])
    if name == "openvino":
        import openvino

        inside = openvino.Core().read_model(output / "model.xml").get_rt_info("mskd").astype(str)
        assert json.loads(inside) == json.loads((output / "metadata.json").read_text())
        return json.loads(inside)
    assert name == "monai-bundle", f"say here where a user of {name} finds the metadata"
    return json.loads((output / "configs" / "metadata.json").read_text())["mskd"]


def test_the_metadata_say_what_the_network_is(name: str, threshold_package: Callable[..., Any], tmp_path: Path) -> None:
    package, output = threshold_package((0.5,), spacing=(3.0, None, 1.0), licence="CC-BY-4.0"), place(tmp_path, name)
    export_package(package, name, output)
    found = read_metadata(name, output)
    assert found["labels"][0]["name"] == "above 1"
    assert found["spacing"] == [3.0, None, 1.0]
    assert found["normalization"]["name"] == "none"
    assert found["licence"] == "CC-BY-4.0"
    assert found["package_fingerprint"] == package.fingerprint
    assert found["image"]["axes"] == ["n", "c", "z", "y", "x"]


def test_an_export_is_replaced_on_request_alone(
    name: str, threshold_package: Callable[..., Any], tmp_path: Path
) -> None:
    package, output = threshold_package(), place(tmp_path, name)
    before = contents(package.path)
    export_package(package, name, output)
    with pytest.raises(SettingsError, match="exists already"):
        export_package(package, name, output)
    first = set(contents(output))
    export_package(package, name, output, overwrite=True)
    assert set(contents(output)) == first
    assert contents(package.path) == before
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("off", [0.01, float("nan")])
def test_what_computes_otherwise_is_not_left(
    name: str, off: float, threshold_package: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, output, kind = threshold_package(), place(tmp_path, name), FORMATS[name]
    export_package(package, name, output)
    before, load = contents(output), kind.load
    monkeypatch.setattr(kind, "load", lambda self, target: lambda image: load(self, target)(image) + off)
    with pytest.raises(PackageError, match=r"logits differ by .* so nothing was written"):
        export_package(package, name, output, overwrite=True)
    assert contents(output) == before
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_a_full_disk_leaves_nothing(
    name: str, threshold_package: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = place(tmp_path, name)

    def fill(self: Any, package: Any, target: Path) -> None:
        written = target if FORMATS[name].suffix else target / "half"
        written.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FORMATS[name], "write", fill)
    with pytest.raises(InputError, match="No space left on device"):
        export_package(threshold_package(), name, output)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_said_before_anything_is_done(
    name: str, threshold_package: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FORMATS[name], "available", classmethod(lambda kind: "the Python package 'x' is missing."))
    with pytest.raises(SettingsError, match=f"'{name}' cannot be written here: the Python package 'x' is missing"):
        export_package(threshold_package(), name, place(tmp_path, name))


def test_a_folder_of_somebody_else_is_not_replaced(threshold_package: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingsError, match="was not made by an export"):
        export_package(threshold_package(), "monai-bundle", tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_name_with_another_ending_is_refused(threshold_package: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ends in \.pt"):
        export_package(threshold_package(), "torchscript", tmp_path / "model.onnx")


def test_the_comparison_covers_padding_batches_and_one_voxel(threshold_package: Callable[..., Any]) -> None:
    network = threshold_package().load_network()
    sizes = [tuple(image.shape) for image in export_run.awkward_images(network, 1)]
    assert any(batch > 1 for batch, *_ in sizes)
    assert (1, 1, 1, 1, 1) in sizes
    assert any(side % 2 for _, _, *sides in sizes for side in sides)
