"""The brain template: fetched with its notice or left out with a sentence; both boxes segmented and merged."""

from __future__ import annotations

import subprocess
import zipfile

import numpy as np
import pytest

from mskd.demo import brain
from mskd.errors import InputError
from mskd.image import Geometry, read_labels


def write_template(path):
    """A head-shaped nothing on the template's own kind of grid: x and y run against LPS; 2 mm, to be quick."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(1, 255, (70, 70, 70)).astype(np.uint8))
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetOrigin((70.0, 70.0, -70.0))
    image.SetDirection((-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    sitk.WriteImage(image, str(path))


def make_wheel(path, member=f"nilearn/datasets/data/{brain.MEMBER}", content=b"voxels"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def test_the_one_file_is_taken_with_its_notice(tmp_path):
    wheel = make_wheel(tmp_path / "nilearn-1.0-py3-none-any.whl")
    brain.extract_template(wheel, tmp_path / "t1.nii.gz")
    assert (tmp_path / "t1.nii.gz").read_bytes() == b"voxels"
    notice = (tmp_path / "NOTICE.txt").read_text(encoding="utf-8")
    assert "Louis Collins, McConnell Brain Imaging Centre" in notice
    assert "provided that the above copyright" in notice
    assert wheel.name in notice


def test_a_wheel_without_it_and_a_damaged_wheel_are_sentences(tmp_path):
    with pytest.raises(InputError, match="does not hold mni_icbm152_t1"):
        brain.extract_template(make_wheel(tmp_path / "a.whl", member="other"), tmp_path / "t1.nii.gz")
    (tmp_path / "b.whl").write_bytes(b"no zip")
    with pytest.raises(InputError, match="damaged"):
        brain.extract_template(tmp_path / "b.whl", tmp_path / "t1.nii.gz")
    assert not (tmp_path / "t1.nii.gz").exists()


def test_an_unreachable_index_is_one_sentence_and_no_failure(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: No matching distribution found for nilearn\n")
    monkeypatch.setattr(brain.subprocess, "run", lambda *args, **kwargs: failed)
    monkeypatch.setattr(brain, "bundled_models", lambda: {brain.MODEL: tmp_path})
    assert brain.segment_brain(tmp_path / "brain") == (
        "The MNI152 template could not be fetched from the package index "
        "(No matching distribution found for nilearn), so it was left out."
    )


def test_a_slow_index_is_given_up(tmp_path, monkeypatch):
    def slow(*args, **kwargs):
        raise subprocess.TimeoutExpired("pip", kwargs["timeout"])

    monkeypatch.setattr(brain.subprocess, "run", slow)
    with pytest.raises(InputError, match=r"TimeoutExpired after at most \d+ s"):
        brain.fetch_template(tmp_path)


def test_a_template_that_lies_there_is_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(brain.subprocess, "run", lambda *args, **kwargs: pytest.fail("fetched again"))
    for name in ("t1.nii.gz", "NOTICE.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert brain.fetch_template(tmp_path) == tmp_path / "t1.nii.gz"


def test_an_installation_without_the_model_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(brain, "bundled_models", dict)
    assert "not part of this installation" in brain.segment_brain(tmp_path)


def test_both_boxes_are_segmented_and_merged(tmp_path, monkeypatch, threshold_package):
    """A model that labels every positive voxel fills both boxes: their volumes are known."""
    package = threshold_package()
    monkeypatch.setattr(brain, "bundled_models", lambda: {brain.MODEL: package.path})
    monkeypatch.setattr(brain, "open_package", lambda name: package)
    write_template(tmp_path / "t1.nii.gz")
    (tmp_path / "NOTICE.txt").write_text("notice")
    found = brain.segment_brain(tmp_path, device="cpu")
    assert isinstance(found, brain.Brain)
    for side in ("left", "right"):
        assert found.volumes[side] == {"above 1": pytest.approx(35 * 51 * 35 / 1000, rel=0.1)}
    labels = read_labels(found.segmentation)
    total = sum(volumes["above 1"] for volumes in found.volumes.values())
    assert np.count_nonzero(labels.array) * labels.geometry.voxel_volume / 1000 == pytest.approx(total)
    right = np.argwhere(labels.array)[:, 2] * -2.0 + 70.0 < 0  # LPS x below 0 is the patient's right
    assert 0.45 < right.mean() < 0.55
    assert found.overlay.stat().st_size > 1000


def test_the_boxes_lie_on_their_own_sides():
    left, right = brain.BOXES["left"], brain.BOXES["right"]
    assert left.maximum[0] < 0 < right.minimum[0]
    for box in (left, right):
        size = np.subtract(box.maximum, box.minimum)
        np.testing.assert_allclose(size, (35, 51, 35))
    grid = Geometry((10, 10, 10), (1.0, 1.0, 1.0), (20.0, 20.0, -20.0))
    assert left.mask(grid).any()
    assert not right.mask(grid).any()
