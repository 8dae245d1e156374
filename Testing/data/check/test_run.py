"""Each fault, planted alone in a clean set, is found in its case, and nothing else is."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mskd.data import open_dataset
from mskd.data.check import Report, check_dataset
from mskd.data.phantom import make_phantom_dataset
from mskd.errors import Cancelled, OutOfMemory, SettingsError
from mskd.events import Event

ODD = "phantom_005"
Arrays = Callable[[np.ndarray], np.ndarray]
NOISE = np.random.default_rng(0)


def image(folder: Path, case: str = ODD) -> Path:
    return folder / "imagesTr" / f"{case}.nii.gz"


def labels(folder: Path, case: str = ODD) -> Path:
    return folder / "labelsTr" / f"{case}.nii.gz"


def change(path: Path, voxels: Arrays = lambda array: array, **header: tuple[float, ...]) -> None:
    """Rewrite a file with other voxels, or with another Spacing, Origin or Direction."""
    before = sitk.ReadImage(str(path))
    after = sitk.GetImageFromArray(voxels(sitk.GetArrayFromImage(before)))
    for name in ("Spacing", "Origin", "Direction"):
        getattr(after, f"Set{name}")(header.get(name.lower(), getattr(before, f"Get{name}")()))
    sitk.WriteImage(after, str(path))


def both(folder: Path, voxels: Arrays = lambda array: array, **header: tuple[float, ...]) -> None:
    for path in (image(folder), labels(folder)):
        change(path, voxels, **header)


def put(value: float, index: object = (3, 3, 3)) -> Arrays:
    def write(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[index] = value
        return array

    return write


def relabel(**values: int) -> Arrays:
    """``relabel(_4=6)`` makes 6 of 4; all at once."""

    def write(array: np.ndarray) -> np.ndarray:
        table = np.arange(256, dtype=np.uint8)
        for old, new in values.items():
            table[int(old[1:])] = new
        return table[array]

    return write


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def describe(folder: Path, **changes: dict[str, str]) -> None:
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, **{key: description[key] | value for key, value in changes.items()}}))


def add_case(folder: Path, voxels: Arrays = lambda array: array, marks: Arrays = lambda array: array) -> None:
    """The odd case a second time, as ``again``."""
    for path, edit in ((image, voxels), (labels, marks)):
        shutil.copy(path(folder), path(folder, "again"))
        change(path(folder, "again"), edit)
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    entry = {"image": "imagesTr/again.nii.gz", "label": "labelsTr/again.nii.gz"}
    path.write_text(json.dumps({**description, "training": [*description["training"], entry]}))


def masked(folder: Path) -> None:
    """Blank whatever the labels do not mark, in the upper half."""
    marks = sitk.GetArrayFromImage(sitk.ReadImage(str(labels(folder))))
    marks[: len(marks) // 2] = 1
    change(image(folder), lambda array: np.where(marks > 0, array, -1000).astype(np.int16))


def erase_but(folder: Path, value: int, keep: int) -> None:
    for path in sorted((folder / "labelsTr").iterdir())[keep:]:
        change(path, relabel(**{f"_{value}": 0}))


def noisy(array: np.ndarray) -> np.ndarray:
    return array + NOISE.normal(0, 20, array.shape).astype(np.float32)


ONE = (ODD,)
TWO = (ODD, "again")
# What is planted; the rule that must find it, how grave it is, in which cases; and words of its sentence.
FAULTS: dict[str, tuple[Callable[[Path], None], str, str, tuple[str, ...], str]] = {
    "truncated image": (lambda f: truncate(image(f)), "unusable-image", "error", ONE, "truncated"),
    "truncated labels": (lambda f: truncate(labels(f)), "unusable-labels", "error", ONE, "truncated"),
    "no image at all": (lambda f: image(f).write_text("text"), "unusable-image", "error", ONE, "not an image"),
    "NaN": (lambda f: change(image(f), put(np.nan)), "unusable-image", "error", ONE, "NaN or infinite"),
    "infinite": (lambda f: change(image(f), put(np.inf)), "unusable-image", "error", ONE, "NaN or infinite"),
    "half a label": (lambda f: change(labels(f), put(1.5)), "unusable-labels", "error", ONE, "label value 1.5"),
    "a value without a name": (lambda f: change(labels(f), put(9)), "unnamed-value", "error", ONE, "the value 9"),
    "shape": (lambda f: change(labels(f), lambda a: a[:-1]), "grid-mismatch", "error", ONE, "resample the label map"),
    "origin": (lambda f: change(labels(f), origin=(5, 0, 0)), "grid-mismatch", "error", ONE, "origin"),
    "label spacing": (lambda f: change(labels(f), spacing=(8, 8, 9)), "grid-mismatch", "error", ONE, "spacing"),
    "direction": (
        lambda f: change(labels(f), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)),
        "grid-mismatch",
        "error",
        ONE,
        "resample the label map",
    ),
    "constant": (lambda f: change(image(f), lambda a: a * 0 - 5), "constant-image", "error", ONE, "is -5; export"),
    "nearly constant": (
        lambda f: change(image(f), lambda a: np.where(a >= np.sort(a, None)[-20], a, -1000)),
        "nearly-constant-image",
        "warning",
        ONE,
        "one and the same value",
    ),
    "a class that is nowhere": (lambda f: describe(f, labels={"7": "ghost"}), "absent-class", "error", (), "'ghost'"),
    "a class in two patients": (
        lambda f: erase_but(f, 5, 2),
        "rare-class",
        "warning",
        ("phantom_000", "phantom_001"),
        "'pancreas' (value 5) occurs in 2 patients only",
    ),
    "a class that one lacks": (
        lambda f: change(labels(f), relabel(_5=0)),
        "missing-class",
        "note",
        ONE,
        "'pancreas' (value 5) is missing in 1 of 12",
    ),
    "no labels drawn": (lambda f: change(labels(f), lambda a: a * 0), "empty-labels", "warning", ONE, "is empty"),
    "left for right": (
        lambda f: change(labels(f), relabel(_4=6, _6=4)),
        "swapped-sides",
        "error",
        ONE,
        "right of 'right kidney'",
    ),
    "stomach for spleen": (
        lambda f: change(labels(f), relabel(_2=3, _3=2)),
        "misplaced-labels",
        "warning",
        ONE,
        "of the labels' middle, usually",
    ),
    "labels shifted": (
        lambda f: change(labels(f), lambda a: np.roll(a, 3, 1)),
        "misplaced-labels",
        "warning",
        ONE,
        "tissue under them deviates",
    ),
    "labels upside down": (
        lambda f: change(labels(f), lambda a: a[::-1]),
        "misplaced-labels",
        "warning",
        ONE,
        "of the labels' middle",
    ),
    "labels mirrored": (
        lambda f: change(labels(f), lambda a: a[..., ::-1]),
        "swapped-sides",
        "error",
        ONE,
        "the other way round",
    ),
    "image and labels mirrored": (lambda f: both(f, lambda a: a[..., ::-1]), "swapped-sides", "error", ONE, ""),
    "the same case twice": (add_case, "duplicate", "error", TWO, "voxel for voxel, under different patients"),
    "the same image with other labels": (
        lambda f: add_case(f, marks=put(0, np.s_[:10])),
        "duplicate",
        "error",
        TWO,
        "with different labels, under different patients",
    ),
    "the same image as floats": (lambda f: add_case(f, lambda a: a.astype(np.float64)), "duplicate", "error", TWO, ""),
    "the same image with noise": (lambda f: add_case(f, noisy), "near-duplicate", "warning", TWO, "correlate by 0.99"),
    "the same image in other units": (
        lambda f: add_case(f, lambda a: (a // 8 * 7).astype(np.int16)),
        "near-duplicate",
        "warning",
        TWO,
        "almost the same image",
    ),
    "slices too thick": (
        lambda f: both(f, spacing=(8, 8, 16)),
        "grid-outlier",
        "warning",
        ONE,
        "spacing along z (head) 16 mm, usually 8",
    ),
    "a small field of view": (lambda f: both(f, lambda a: a[5:14]), "grid-outlier", "warning", ONE, "field of view"),
    "stored the other way": (
        lambda f: both(f, lambda a: a[:, ::-1], direction=(1, 0, 0, 0, -1, 0, 0, 0, 1), origin=(-92, 92, -76)),
        "orientation",
        "note",
        ONE,
        "The stored axes run LAS in 1 of 12 cases",
    ),
    "offset of 1024": (
        lambda f: change(image(f), lambda a: a + 1024),
        "not-hounsfield",
        "warning",
        ONE,
        "no value below 0",
    ),
    "scaled to 0 to 1": (
        lambda f: change(image(f), lambda a: (a / 500).astype(np.float32)),
        "not-hounsfield",
        "warning",
        ONE,
        "lie within",
    ),
    "slope not applied": (
        lambda f: change(image(f), lambda a: (a * 3.0).astype(np.float32)),
        "intensity-range",
        "warning",
        ONE,
        "slope and intercept",
    ),
    "a liver hardly begun": (
        lambda f: change(labels(f), lambda a: np.where((a == 1) & (np.indices(a.shape)[0] != 15), 0, a)),
        "class-volume",
        "warning",
        ONE,
        "'liver' has",
    ),
    "a voxel gone astray": (
        lambda f: change(labels(f), put(2, (1, 1, 1))),
        "stray-voxels",
        "warning",
        ONE,
        "'spleen' has a few voxels",
    ),
    "masked by its labels": (masked, "masked-image", "warning", ONE, "gives them away"),
}


def graver(report: Report, severity: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Errors and warnings, and notes too if it is one that is looked for."""
    return [
        (finding.rule, finding.severity, finding.cases)
        for finding in report.findings
        if finding.severity != "note" or severity == "note"
    ]


def test_a_clean_set_is_clean(clean: Path) -> None:
    assert check_dataset(open_dataset(clean)).findings == ()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(folder: Path, fault: str) -> None:
    plant, rule, severity, cases, words = FAULTS[fault]
    plant(folder)
    report = check_dataset(open_dataset(folder))
    assert graver(report, severity) == [(rule, severity, cases)]
    assert words in report.findings[0].text
    json.dumps(report.as_json(), allow_nan=False)


def test_a_label_map_copied_over_another(folder: Path) -> None:
    shutil.copy(labels(folder, "phantom_003"), labels(folder))
    found = check_dataset(open_dataset(folder)).findings
    assert (found[0].rule, found[0].severity, found[0].cases) == ("same-labels", "warning", ("phantom_003", ODD))


def test_sides_that_are_wrong_throughout_are_one_warning(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        change(path, relabel(_4=6, _6=4))
    assert graver(check_dataset(open_dataset(folder)), "warning") == [("sides-throughout", "warning", ())]


def test_a_second_kind_of_case_is_a_note_and_no_outlier(folder: Path) -> None:
    for index in range(4):
        for path in (image, labels):
            change(path(folder, f"phantom_{index:03d}"), spacing=(8, 8, 16))
    report = check_dataset(open_dataset(folder))
    assert [(finding.rule, finding.severity) for finding in report.findings] == [("grid-outlier", "note")]
    assert "4 of 12 cases" in report.findings[0].text


def test_the_scale_of_an_mr_image_is_a_note(folder: Path) -> None:
    describe(folder, modality={"0": "MRI"})
    change(image(folder), lambda array: array.astype(np.float32) * 1000)
    report = check_dataset(open_dataset(folder))
    assert [(finding.rule, finding.severity, finding.cases) for finding in report.findings] == [
        ("intensity-scale", "note", ONE)
    ]


def test_channels(folder: Path) -> None:
    """Two channels: one case lacks the second, another has the first in its place."""
    dataset = open_dataset(folder)
    for case in dataset.cases:
        shutil.copy(case.images[0], folder / f"{case.id}.nii.gz")
        change(folder / f"{case.id}.nii.gz", lambda array: array // 2)
    cases = [replace(case, images=(*case.images, folder / f"{case.id}.nii.gz")) for case in dataset.cases]
    dataset = replace(dataset, channels=dataset.channels * 2, cases=tuple(cases))
    assert check_dataset(dataset).findings == ()
    cases[1] = replace(cases[1], images=cases[1].images[:1])
    cases[2] = replace(cases[2], images=cases[2].images[:1] * 2)
    found = check_dataset(replace(dataset, cases=tuple(cases))).findings
    assert [(finding.rule, finding.cases) for finding in found] == [
        ("unusable-image", ("phantom_001",)),
        ("identical-channels", ("phantom_002",)),
    ]
    assert "1 channels, but the data set declares 2" in found[0].text


def test_unlabelled_cases_are_checked_too(folder: Path) -> None:
    dataset = open_dataset(folder)
    cases = (*dataset.cases, replace(dataset.cases[5], id="test", patient="test", labels=None))
    found = check_dataset(replace(dataset, cases=cases)).findings
    assert [(finding.rule, finding.cases) for finding in found] == [("duplicate", (ODD, "test"))]


def test_processes_find_the_same(folder: Path) -> None:
    truncate(image(folder))
    dataset = open_dataset(folder)
    alone, together = check_dataset(dataset), check_dataset(dataset, jobs=2)
    assert alone.findings == together.findings
    assert alone.as_json() == together.as_json()


@pytest.mark.parametrize("jobs", [1, 2])
def test_it_tells_progress_and_can_be_cancelled(clean: Path, jobs: int) -> None:
    events: list[Event] = []
    with pytest.raises(Cancelled):
        check_dataset(open_dataset(clean), jobs=jobs, on_event=events.append, cancelled=lambda: len(events) > 2)
    assert events == [Event("check", done, 12) for done in (1, 2, 3)]
    with pytest.raises(SettingsError, match="at least 1 process"):
        check_dataset(open_dataset(clean), jobs=0)


def test_a_killed_process_is_told_as_memory(clean: Path) -> None:
    def kill(event: Event) -> None:
        for process in multiprocessing.active_children()[:1]:
            process.kill()

    with pytest.raises(OutOfMemory, match="fewer --jobs than 2"):
        check_dataset(open_dataset(clean), jobs=2, on_event=kill)


def test_few_cases_have_no_outliers(tmp_path: Path) -> None:
    folder = make_phantom_dataset(tmp_path / "few", 3, shape=(20, 24, 24), spacing=(8, 8, 8))
    for path in (image, labels):
        change(path(folder, "phantom_001"), spacing=(8, 8, 16))
    assert check_dataset(open_dataset(folder)).findings == ()


@pytest.mark.real_data
def test_real_images_that_were_masked_by_their_labels_are_found(real_data_folder: Path) -> None:
    dataset = open_dataset(real_data_folder / "OpenKBP_HeadNeckCT")
    cases = dataset.select([f"pt_{number}" for number in (173, 9, 90, 114, 115, 119, 120, 122, 124, 128)])
    found = check_dataset(replace(dataset, cases=cases)).findings
    by_rule = {finding.rule: finding for finding in found}
    assert {finding.cases for finding in found if finding.rule == "masked-image"} == {("pt_173",), ("pt_9",)}
    assert by_rule["stray-voxels"].cases == ("pt_90",)
    assert "in front of 'RightParotid'" in by_rule["sides-throughout"].text
    assert not any(finding.severity == "error" for finding in found)
