"""The demo on a budget of seconds: everything it promises lies in the folder, and it repeats quickly."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import SimpleITK as sitk

from mskd.demo.report import write_report
from mskd.demo.run import ALONE, STUDENT, TEACHER, run_demo
from mskd.demo.settings import DemoSettings
from mskd.errors import Cancelled, SettingsError
from mskd.package import verify_package

RECIPE = """
name = "phantom"
[input]
spacing = [8.0, 8.0, 8.0]
normalization = { name = "clip_zscore", lower = -150.0, upper = 250.0, mean = 50.0, std = 70.0 }
patch = [20, 24, 24]
[split]
validation = 0.2
test = 0.25
[augmentation]
spatial = 0.0
[teacher]
network = "residual_unet"
arguments = { channels = [8, 16], norm = "instance" }
optimization = { steps = 40, batch = 2, learning_rate = 0.02, ema = 0.8, validate_every = 20 }
[student]
network = "light_unet"
arguments = { channels = [4, 8] }
optimization = { steps = 4, batch = 2, learning_rate = 0.01, validate_every = 2 }
[distillation]
terms = { kd = {}, ffd = {}, rgd = {} }
[package]
title = "Abdominal phantom"
"""
PRODUCTS = {"segmentation.seg.nrrd", "overlay.png", "table.md", "table.json", "curves.png", "volume.nii.gz"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    (folder / "phantom.toml").write_text(RECIPE)
    return DemoSettings(
        folder / "demo",
        cases=8,
        shape=(20, 24, 24),
        spacing=(8.0, 8.0, 8.0),
        recipe=str(folder / "phantom.toml"),
        device="cpu",
        template=False,
    )


@pytest.fixture(scope="module")
def done(settings):
    demo = run_demo(settings)
    write_report(demo)
    return demo


def test_all_that_is_promised_lies_in_the_folder(settings, done):
    assert {path.name for path in settings.output.iterdir()} == {*PRODUCTS, "report.html", "data", "runs"}
    assert [model.name for model in done.models] == [TEACHER, ALONE, STUDENT]
    assert done.models[0].parameters > 3 * done.models[2].parameters
    assert done.models[1].parameters == done.models[2].parameters
    for model in done.models:
        verify_package(model.package)


def test_only_the_last_student_had_a_teacher_and_all_else_is_equal(done):
    alone, student = (
        json.loads((model.run / "settings.json").read_text(encoding="utf-8")) for model in done.models[1:]
    )
    assert alone["teacher"] is None
    assert student["teacher"]["fingerprint"] == done.models[0].package.fingerprint
    for same in ("data_fingerprint", "recipe", "role"):
        assert alone[same] == student[same]


def test_the_three_are_measured_on_the_same_cases_that_no_training_saw(done):
    for table in done.tables.values():
        cases = table.about["dataset"]["cases"]
        assert tuple(cases) == done.split.test
        assert not set(cases) & {*done.split.train, *done.split.validation}


def test_the_segmentation_is_on_the_oblique_grid_with_named_segments(settings, done):
    volume, found = (sitk.ReadImage(str(path)) for path in (settings.volume, settings.segmentation))
    assert found.GetSize() == volume.GetSize()
    assert found.GetDirection() == pytest.approx(volume.GetDirection(), abs=1e-6)
    assert len(set(volume.GetSpacing())) == 3
    names = {found.GetMetaData(key) for key in found.GetMetaDataKeys() if re.fullmatch(r"Segment\d+_Name", key)}
    assert names == {label.name for label in done.models[0].package.manifest.labels}


def test_the_report_is_one_file_that_shows_everything(settings, done):
    text = settings.report.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    for wanted in (
        "teacher",
        "student alone",
        "student with MSKD",
        "reconstruction",
        "left out, as asked",
        "mskd segment",
    ):
        assert wanted in text
    mean = done.tables[STUDENT].summary("mean", "dice").mean
    assert f"{mean:.3f}" in text
    assert f"{mean:.3f}" in settings.table.read_text(encoding="utf-8")


def test_a_second_demo_takes_the_finished_runs_and_writes_only_its_own(settings, done):
    mine = settings.output / "notes.txt"
    mine.write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in settings.runs.rglob("*") if path.is_file()}
    again = run_demo(settings)
    assert all(model.reused for model in again.models)
    assert before == {path: path.stat().st_mtime_ns for path in settings.runs.rglob("*") if path.is_file()}
    assert mine.read_text(encoding="utf-8") == "mine"
    mine.unlink()
    assert again.tables[STUDENT].as_json()["summary"] == done.tables[STUDENT].as_json()["summary"]


def test_other_student_settings_train_the_students_again_and_keep_the_teacher(settings, done):
    again = run_demo(replace(settings, overrides=("student.optimization.steps=3",)))
    assert [model.reused for model in again.models] == [True, False, False]


def test_a_folder_that_is_not_the_demo_s_is_kept(settings, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.txt").write_text("mine")
    with pytest.raises(SettingsError, match="not the demo's and was kept"):
        run_demo(replace(settings, output=tmp_path))
    assert (tmp_path / "data/mine.txt").read_text(encoding="utf-8") == "mine"
    with pytest.raises(SettingsError, match="is not a folder"):
        run_demo(replace(settings, output=tmp_path / "data/mine.txt"))


def test_cancelled_while_the_phantom_is_made_it_starts_over(settings, tmp_path):
    calls = []

    def cancelled():
        calls.append(None)
        return len(calls) > 2

    with pytest.raises(Cancelled):
        run_demo(replace(settings, output=tmp_path, cancelled=cancelled))
    assert not (tmp_path / "data/dataset.json").exists()
    with pytest.raises(Cancelled, match="start it again"):  # and is not refused for the folder it left
        run_demo(replace(settings, output=tmp_path, cancelled=lambda: True))
