"""Manifests and recipes are validated with sentences that name the fault and the remedy."""

from __future__ import annotations

import pytest

from mskd.errors import PackageError, SettingsError
from mskd.registry import Registry
from mskd.spec import Label, Manifest, Normalization, validate

MANIFEST = {
    "name": "toy",
    "title": "Toy",
    "network": {"name": "light_unet", "arguments": {}},
    "channels": [{"name": "CT", "modality": "CT"}],
    "spacing": [1.0, None, 2],
    "normalization": {"name": "zscore"},
    "patch": [16, 16, 16],
    "labels": [{"value": 1, "name": "a", "color": [1, 2, 3]}, {"value": 2, "name": "b", "color": [4, 5, 6]}],
    "provenance": {"method": "supervised", "data": "toy"},
    "licence": "CC0",
    "intended_use": "tests",
}


def check(**changes: object) -> Manifest:
    return validate(Manifest, {**MANIFEST, **changes}, source="model.json", error=PackageError)


def test_a_manifest_survives_json() -> None:
    manifest = check()
    assert manifest.spacing == (1.0, None, 2.0)
    assert validate(Manifest, manifest.model_dump(mode="json"), source="again", error=PackageError) == manifest
    assert (manifest.dim, manifest.classes) == (3, 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lables": []}, "Unknown key 'lables'; did you mean 'labels'"),
        ({"title": ""}, "'title' is ''"),
        ({"orientation": "LPP"}, "one letter of each pair"),
        ({"spacing": [1.0, 0.0, 1.0]}, "'spacing.1' is 0.0"),
        ({"patch": ["16", 16, 16]}, "'patch.0' is '16'"),
        ({"labels": [{"value": 2, "name": "a", "color": [1, 2, 3]}]}, "must be 1, 2, 3"),
        ({"labels": [{"value": v, "name": "a", "color": [1, 2, 3]} for v in (1, 2)]}, "must differ"),
        ({"labels": [{"value": 1, "name": "a", "color": [1, 2, 256]}]}, "256"),
        ({"largest_component": ["c"]}, "model.json: largest_component names ['c'], which are not labels of this model"),
        ({"normalization": {"name": "zscore", "mean": 1.0}}, "belong to clip_zscore"),
        ({"normalization": {"name": "clip_zscore", "mean": 1.0}}, "needs lower, upper, mean and std"),
        ({"files": {"weights.safetensors": "abc"}}, "files.weights.safetensors"),
    ],
)
def test_faults_are_named(changes: dict, sentence: str) -> None:
    with pytest.raises(PackageError) as caught:
        check(**changes)
    assert sentence in str(caught.value)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(PackageError, match="spacing"):
        check(spacing=[1.0, float("nan"), 1.0])


def test_values_that_json_lacks_are_refused() -> None:
    with pytest.raises(SettingsError, match="JSON cannot express"):
        validate(Normalization, {"name": {1, 2}}, source="x", error=SettingsError)


def test_labels_cannot_be_changed() -> None:
    label = Label(value=1, name="a", color=(1, 2, 3))
    with pytest.raises(ValueError, match="frozen"):
        label.name = "b"  # type: ignore[misc]


def test_a_name_is_registered_once() -> None:
    registry: Registry[int] = Registry("thing", "mskd.spec")
    registry.register("one")(1)
    with pytest.raises(ValueError, match="twice"):
        registry.register("one")(2)
    with pytest.raises(SettingsError, match=r"no thing 'two' \(known: one\)"):
        registry["two"]


def test_many_faults_make_no_long_sentence() -> None:
    data = {f"{'x' * 1000}{index}": index for index in range(500)}
    with pytest.raises(SettingsError, match="more faults") as caught:
        validate(Normalization, data, source="file", error=SettingsError)
    assert len(str(caught.value)) < 4000
