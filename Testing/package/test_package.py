"""Packages: saved whole, opened checked, replayed, zipped."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from mskd.errors import InputError, PackageError, SettingsError
from mskd.networks import build_network
from mskd.package import (
    amend_package,
    bundled_models,
    open_package,
    render_card,
    save_package,
    verify_package,
    zip_package,
)
from mskd.package.weights import distinct_tensors, load_weights, pack_tensors
from mskd.spec import Metric, NetworkSpec

FILES = {"model.json", "weights.safetensors", "probe.safetensors", "card.md"}
Make = Callable[..., Any]
FullDisk = Callable[[int], AbstractContextManager[None]]


def random_model(threshold_network: Make, family: str = "light_unet", dim: int = 3) -> tuple[Any, Any]:
    manifest, _ = threshold_network((0.5, 1.5), dim)
    arguments = {"dim": dim, "in_channels": 1, "classes": 3, "channels": [4, 8]}
    manifest = manifest.model_copy(update={"network": NetworkSpec(name=family, arguments=arguments)})
    torch.manual_seed(0)
    network = build_network(manifest.network)
    network(torch.randn(2, 1, *(8,) * dim))  # batch statistics that are not the initial ones
    return manifest, network


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("family", ["light_unet", "residual_unet"])
def test_what_was_saved_comes_back(tmp_path: Path, threshold_network: Make, family: str, dim: int) -> None:
    manifest, network = random_model(threshold_network, family, dim)
    package = save_package(tmp_path / "model", manifest, network)
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert package.manifest.model_copy(update={"files": {}}) == manifest
    loaded = open_package(tmp_path / "model").load_network()
    assert not loaded.training
    for (key, old), (other, new) in zip(network.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(old, new)


def test_saving_leaves_the_network_as_it_was(tmp_path: Path, threshold_network: Make) -> None:
    manifest, network = random_model(threshold_network)
    network.train()
    network.head.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    save_package(tmp_path / "model", manifest, network)
    assert network.training
    assert not network.head.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_loading_leaves_the_random_state_as_it_was(threshold_package: Make) -> None:
    package = threshold_package()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    package.load_network()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_model_is_the_same_bytes(tmp_path: Path, threshold_network: Make) -> None:
    manifest, network = random_model(threshold_network)
    first = save_package(tmp_path / "a", manifest, network)
    second = save_package(tmp_path / "b", manifest, network)
    assert first.fingerprint == second.fingerprint
    zips = [zip_package(tmp_path / name, tmp_path / f"{name}.mskd.zip").read_bytes() for name in "ab"]
    assert zips[0] == zips[1]


def test_aliased_weights_are_stored_once(threshold_network: Make) -> None:
    manifest, network = random_model(threshold_network)
    network.twin = network.head  # type: ignore[assignment]
    distinct = distinct_tensors(network)
    assert not any(key.startswith("twin") for key in distinct)
    assert "head.weight" in distinct
    plain = build_network(manifest.network)
    assert distinct.keys() == plain.state_dict().keys()
    loaded = load_weights(manifest, pack_tensors(distinct), source="test")
    assert torch.equal(loaded.head.weight, network.head.weight)


def test_zip_is_the_same_package(tmp_path: Path, threshold_package: Make) -> None:
    package = threshold_package()
    packed = open_package(zip_package(package.path, tmp_path / "model.mskd.zip"))
    assert packed.fingerprint == package.fingerprint
    assert verify_package(packed).passed


def test_zip_of_a_folder_made_by_hand(tmp_path: Path, threshold_package: Make) -> None:
    package = threshold_package()
    with zipfile.ZipFile(tmp_path / "hand.mskd.zip", "w") as archive:
        archive.writestr("model/", b"")
        archive.writestr("__MACOSX/model/._card.md", b"litter")
        for name, data in package.files.items():
            archive.writestr(f"model/{name}", data)
    assert open_package(tmp_path / "hand.mskd.zip").fingerprint == package.fingerprint


def test_zip_names_and_existing_files(tmp_path: Path, threshold_package: Make) -> None:
    folder = threshold_package().path
    with pytest.raises(SettingsError, match=r"\.mskd\.zip"):
        zip_package(folder, tmp_path / "model.zip")
    (tmp_path / "model.mskd.zip").write_bytes(b"precious")
    with pytest.raises(SettingsError, match="exists already"):
        zip_package(folder, tmp_path / "model.mskd.zip")
    assert (tmp_path / "model.mskd.zip").read_bytes() == b"precious"


def test_existing_folders_are_kept(tmp_path: Path, threshold_network: Make) -> None:
    manifest, network = random_model(threshold_network)
    first = save_package(tmp_path / "model", manifest, network)
    with pytest.raises(SettingsError, match="exists already"):
        save_package(tmp_path / "model", manifest, network)
    with torch.no_grad():
        network.head.bias += 1
    assert save_package(tmp_path / "model", manifest, network, overwrite=True).fingerprint != first.fingerprint
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match="not a model package"):
        save_package(tmp_path / "papers", manifest, network, overwrite=True)
    assert (tmp_path / "papers" / "thesis.tex").exists()


def test_full_disk_leaves_nothing(tmp_path: Path, threshold_network: Make, full_disk: FullDisk) -> None:
    with full_disk(3000), pytest.raises(InputError, match="cannot be written"):
        save_package(tmp_path / "model", *random_model(threshold_network))
    assert not list(tmp_path.iterdir())


def test_network_and_manifest_that_disagree_are_not_saved(tmp_path: Path, threshold_network: Make) -> None:
    manifest, network = random_model(threshold_network)
    with pytest.raises(PackageError, match="labels"):
        save_package(tmp_path / "model", manifest.model_copy(update={"labels": manifest.labels[:1]}), network)
    assert not list(tmp_path.iterdir())


def test_verify_replays_the_probe(threshold_package: Make) -> None:
    report = verify_package(threshold_package())
    assert report.passed
    assert report.files == 4
    assert report.voxels_equal == 1.0


def test_verify_notices_other_logits(threshold_package: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    package = threshold_package()
    network = package.load_network()
    with torch.no_grad():
        network.head.bias[0] += 0.05
    monkeypatch.setattr(type(package), "load_network", lambda self: network)
    assert not verify_package(package).passed


def test_a_package_is_amended_around_the_same_weights(threshold_package: Make, tmp_path: Path) -> None:
    package = threshold_package((0.5,))
    amended = amend_package(package, package.manifest.model_copy(update={"title": "Another title"}))
    assert amended.path == package.path
    assert amended.fingerprint != package.fingerprint
    assert "Another title" in amended.files["card.md"].decode()
    kept = ("weights.safetensors", "probe.safetensors")
    assert [amended.files[name] for name in kept] == [package.files[name] for name in kept]
    packed = open_package(zip_package(package.path, tmp_path / "model.mskd.zip"))
    with pytest.raises(SettingsError, match="unpack it first"):
        amend_package(packed, packed.manifest)


def test_card_says_what_matters(threshold_network: Make) -> None:
    manifest, _ = threshold_network((0.5, 1.5))
    figures = {"metric": "dice", "label": "above 1", "cases": 26, "split": "test"}
    metrics = (
        Metric(mean=0.876, std=0.043, **figures),
        Metric(mean=0.9, std=0.01, network="its teacher", **figures),
    )
    card = render_card(manifest.model_copy(update={"metrics": metrics, "citation": "Someone 2024"}))
    for part in (
        "Tests.",
        "| 1 | above 1 |",
        "| Dice | above 1 | 26 | test | 0.876 ± 0.043 | 0.900 ± 0.010 |",
        "Apache-2.0",
        "Someone",
    ):
        assert part in card


def test_card_tables_survive_hostile_names(threshold_network: Make) -> None:
    manifest, _ = threshold_network()
    odd = manifest.labels[0].model_copy(update={"name": "a | b\n# c"})
    assert "| 1 | a / b # c |" in render_card(manifest.model_copy(update={"labels": (odd,)}))


def test_packages_hold_the_card_of_their_manifest(threshold_package: Make) -> None:
    package = threshold_package()
    assert package.files["card.md"].decode() == render_card(package.manifest)


def test_bundled_models_are_found_by_name(threshold_package: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    package = threshold_package()
    monkeypatch.setenv("MSKD_MODELS", os.pathsep.join(["/nowhere", str(package.path.parent)]))
    assert bundled_models()["model"] == package.path
    assert open_package("model").fingerprint == package.fingerprint
    with pytest.raises(PackageError, match="did you mean 'model'"):
        open_package("modle")


def test_every_bundled_model_is_sound(root: Path) -> None:
    folder = root / "MSKDSegmentation" / "Resources" / "Models"
    packages = [path.parent for path in folder.glob("*/model.json")]
    if not packages:
        pytest.skip("no model is bundled in this checkout")
    for path in packages:
        package = open_package(path)
        assert verify_package(package).passed
        assert sum(len(data) for data in package.files.values()) < 1.5e6
        assert json.loads((path / "model.json").read_text())["name"] == path.name
