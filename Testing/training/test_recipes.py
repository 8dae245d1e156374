"""The bundled recipes, each on a tiny data set in the layout and with the label names it was written for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from written_layouts import SPACING, scan, write, write_json, write_kits19, write_synapse

from mskd.data import Dataset, open_dataset
from mskd.data.sides import side_of
from mskd.package import open_package
from mskd.spec import Terminology
from mskd.training.draft import load_draft
from mskd.training.planning import complete
from mskd.training.run import RunOptions, distil, train
from mskd.training.settings import Recipe, available_recipes, read_recipe

MODALITY = {"hippocampus": "MRI", "phantom": "CT", "generic": "CT", "chaos": "MRI", "chaos-2d": "MRI", "openkbp": "CT"}
ABDOMEN = ("liver", "right kidney", "left kidney", "spleen")
LABELS = {
    "hippocampus": ("Anterior", "Posterior"),
    "phantom": ("liver", "spleen", "stomach", "kidney", "pancreas"),
    "generic": ("organ",),
    "chaos": ABDOMEN,
    "chaos-2d": ABDOMEN,
    "openkbp": ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible"),
}
WRITERS: dict[str, Callable[[Path], object]] = {"synapse": write_synapse, "kits19": write_kits19}
LEFT, RIGHT = "7771000", "24028007"  # SNOMED CT


def write_decathlon(path: Path, labels: tuple[str, ...], modality: str) -> None:
    names = [f"case_{index}" for index in range(3)]
    for index, name in enumerate(names):
        write(path / "imagesTr" / f"{name}.nii.gz", scan(index))
        write(path / "labelsTr" / f"{name}.nii.gz", scan(0, tuple(range(1, len(labels) + 1))))
    description = {
        "name": "tiny",
        "modality": {"0": modality},
        "labels": {"0": "background", **{str(value): name for value, name in enumerate(labels, start=1)}},
        "training": [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in names],
    }
    write_json(path / "dataset.json", description)


@pytest.fixture(scope="module", params=sorted(available_recipes()))
def recipe_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def dataset(recipe_name: str, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("data")
    if recipe_name in WRITERS:
        WRITERS[recipe_name](path)
    else:
        write_decathlon(path, LABELS[recipe_name], MODALITY[recipe_name])
    return open_dataset(path)


@pytest.fixture(scope="module")
def recipe(recipe_name: str, dataset: Dataset) -> Recipe:
    return complete(load_draft(recipe_name), dataset)[0]


def reduced(name: str) -> tuple[str, ...]:
    """Overrides that leave one step of networks of a few thousand weights on a tiny patch."""
    flat = name == "chaos-2d"
    overrides = [f"input.patch={[8, 8] if flat else [4, 8, 8]}"]
    if name == "phantom":
        overrides.append(f"input.spacing={list(SPACING)}")  # on its own 4 mm the tiny volumes are next to nothing
    for role in ("teacher", "student"):
        strides = [[1, 1], [2, 2], [2, 2]] if flat else [[1, 1, 1], [1, 2, 2], [1, 2, 2]]
        overrides += [
            f"{role}.arguments={{channels=[8, 8, 8], strides={strides}}}",
            f"{role}.optimization.steps=1",
            f"{role}.optimization.batch=2",
            f"{role}.optimization.precision=fp32",
        ]
    return tuple(overrides)


def test_a_recipe_keeps_what_it_says(recipe_name: str, recipe: Recipe) -> None:
    said = read_recipe(recipe_name)[1]
    said.pop("distillation", None)  # its terms come back with their defaults
    check_kept(said, recipe.model_dump(mode="json"))
    assert recipe_name == "generic" or recipe.name == recipe_name
    assert len(recipe.input.patch) == {"generic": 2, "chaos-2d": 2}.get(recipe_name, 3)  # five slices are no volume


def check_kept(said: object, found: object) -> None:
    if isinstance(said, dict):
        assert isinstance(found, dict)
        for key, value in said.items():
            check_kept(value, found[key])
    else:
        assert found == said


def test_styles_and_single_pieces_name_labels_of_the_data_set(recipe: Recipe, dataset: Dataset) -> None:
    styled = recipe.style(dataset.labels)
    assert len({label.color for label in styled}) == len(styled)  # told apart on the screen
    assert set(recipe.package.largest_component) <= {label.name for label in styled}
    assert recipe.augmentation.pairs(dataset.labels) == ()


def test_codes_name_the_side_that_the_label_names(recipe: Recipe, dataset: Dataset) -> None:
    coded = {label.name: label.terminology for label in recipe.style(dataset.labels) if label.terminology}

    def identity(code: Terminology) -> tuple[str, str]:
        return code.type.value, code.type_modifier.value if code.type_modifier else ""

    assert len({identity(code) for code in coded.values()}) == len(coded)
    for name, code in coded.items():
        side = side_of(name)
        if side is not None:
            assert identity(code)[1] == {"left": LEFT, "right": RIGHT}[side[0]]


def test_mirroring_spares_what_lies_on_one_side(recipe_name: str, dataset: Dataset) -> None:
    """A mirror without a swap contradicts labels that name a side."""
    recipe, _ = complete(load_draft(recipe_name), dataset)
    if dataset.mirror_pairs:
        assert recipe.augmentation.mirror == ()


def test_teacher_and_student_take_a_step(
    recipe_name: str, recipe: Recipe, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One step makes no teacher that is worth hearing, and the run would say so.
    monkeypatch.setattr("mskd.training.run._require_better_than_chance", lambda *_: None)
    draft = load_draft(recipe_name, reduced(recipe_name))
    cache = tmp_path / "cache"
    teacher = train(dataset.path, draft, "teacher", RunOptions(tmp_path / "teacher", device="cpu", cache=cache))
    (row,) = map(json.loads, (tmp_path / "teacher" / "metrics.jsonl").read_text().splitlines())
    assert ("loss/supervision" in row) == recipe.teacher.optimization.deep_supervision
    distil(dataset.path, str(teacher.path), draft, RunOptions(tmp_path / "student", device="cpu", cache=cache))
    manifest = open_package(tmp_path / "student" / "model").manifest
    assert [label.name for label in manifest.labels] == [label.name for label in dataset.labels]
    assert manifest.provenance.teacher is not None
    assert manifest.provenance.recipe["name"] == ("tiny" if recipe_name == "generic" else recipe_name)


def test_a_planned_mirror_swaps_the_labels_of_a_pair(tmp_path: Path) -> None:
    write_decathlon(tmp_path, ("left lung", "right lung"), "CT")
    recipe, plan = complete(load_draft("generic", ("augmentation.mirror=['x']",)), open_dataset(tmp_path))
    assert recipe.augmentation.swap == (("left lung", "right lung"),)
    assert plan is not None
    assert "trade places" in plan.reasons["augmentation.swap"]
    unmirrored, _ = complete(load_draft("generic", ("augmentation.mirror=[]",)), open_dataset(tmp_path))
    assert unmirrored.augmentation.swap == ()
