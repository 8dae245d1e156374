"""Small data sets of random voxels, one of each registered layout, written just as their sources write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE, SPACING = (5, 8, 10), (3.0, 0.8, 0.7)  # z, y, x


@dataclass(frozen=True)
class Written:
    """What a data set was made to hold."""

    path: Path
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    channels: int
    labels: tuple[str, ...]
    ignore: bool = False


def scan(seed: int, values: tuple[int, ...] = (), dtype: type = np.int16) -> sitk.Image:
    """An image of random voxels, or a label map of blocks with these values, on one common upright grid."""
    if values:
        array = np.zeros(SHAPE, np.uint16 if max(values) > 255 else np.uint8)
        for index, value in enumerate(values):
            array.reshape(-1)[index * 20 : index * 20 + 20] = value
    else:
        array = np.random.default_rng(seed).integers(-1000, 1000, SHAPE).astype(dtype)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-30.0, 12.0, 50.0))
    return image


def write(path: Path, image: sitk.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_msd(path: Path) -> Written:
    """As Task01 and Task05: the channels are a fourth axis."""
    training = []
    for name in ("BRATS_001", "BRATS_002", "BRATS_003"):
        write(path / "imagesTr" / f"{name}.nii.gz", sitk.JoinSeries([scan(1), scan(2)]))
        write(path / "labelsTr" / f"{name}.nii.gz", scan(0, (1, 2)))
        training.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    write(path / "imagesTs" / "BRATS_485.nii.gz", sitk.JoinSeries([scan(3), scan(4)]))
    description = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "enhancing tumor"},
        "training": training,
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    write_json(path / "dataset.json", description)
    return Written(path, ("BRATS_001", "BRATS_002", "BRATS_003"), ("BRATS_485",), 2, ("edema", "enhancing tumor"))


def write_nnunet(path: Path, suffix: str = ".nii.gz") -> Written:
    """Two channels, an ignore label, test images."""
    for name in ("liver_0", "liver_1", "liver_2", "extra"):
        folder = path / ("imagesTs" if name == "extra" else "imagesTr")
        for channel in range(2):
            write(folder / f"{name}_{channel:04d}{suffix}", scan(channel))
        if name != "extra":
            write(path / "labelsTr" / f"{name}{suffix}", scan(0, (1, 2, 3)))
    description = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
        "numTraining": 3,
        "file_ending": suffix,
    }
    write_json(path / "dataset.json", description)
    return Written(path, ("liver_0", "liver_1", "liver_2"), ("extra",), 2, ("liver", "tumour"), ignore=True)


def write_folder(path: Path) -> Written:
    """Any format, values with gaps, names in a CSV file."""
    for name, suffix in (("a", ".nii.gz"), ("b", ".nrrd"), ("c.v2", ".mha"), ("later", ".mhd")):
        write(path / "images" / f"{name}{suffix}", scan(1, dtype=np.float32))
        if name != "later":
            write(path / "labels" / f"{name}.nrrd", scan(0, (1, 3, 700)))
    (path / "labels.csv").write_text("1,left lung\n3,right lung\n700,heart\n")
    (path / "patients.csv").write_text("a,p1\nb,p1\n")
    return Written(path, ("a", "b", "c.v2"), ("later",), 1, ("left lung", "right lung", "heart"))


def write_synapse(path: Path) -> Written:
    raw = path / "RawData"
    values = tuple(range(1, 14))
    for number in ("0001", "0002", "0021"):
        write(raw / "Training" / "img" / f"img{number}.nii.gz", scan(int(number)))
        write(raw / "Training" / "label" / f"label{number}.nii.gz", scan(0, values))
    write(raw / "Testing" / "img" / "img0061.nii.gz", scan(61))
    organs = "spleen, right kidney, left kidney, gallbladder, esophagus, liver, stomach, aorta, inferior vena cava, "
    organs += "portal vein and splenic vein, pancreas, right adrenal gland, left adrenal gland"
    return Written(path, ("img0001", "img0002", "img0021"), ("img0061",), 1, tuple(organs.split(", ")))


def as_kits(image: sitk.Image) -> sitk.Image:
    """The same image stored as (slices, y, x) from the head down, as KiTS stores it."""
    return sitk.Flip(sitk.PermuteAxes(image, [2, 1, 0]), [True, False, False])


def write_kits(path: Path, names: tuple[str, ...], values: tuple[int, ...]) -> None:
    for index, name in enumerate(names):
        write(path / name / "imaging.nii.gz", as_kits(scan(index, dtype=np.float32)))
        if name != names[-1]:
            write(path / name / "segmentation.nii.gz", as_kits(scan(0, values)))


def write_kits19(path: Path) -> Written:
    names = ("case_00000", "case_00001", "case_00002", "case_00210")
    write_kits(path / "data", names, (1, 2))
    write_json(path / "data" / "kits.json", [])
    return Written(path, names[:3], names[3:], 1, ("kidney", "tumor"))


def write_kits23(path: Path) -> Written:
    names = ("case_00000", "case_00001", "case_00002", "case_00003")
    write_kits(path / "dataset", names, (1, 2, 3))
    for name in names[:3]:
        kidney = path / "dataset" / name / "instances" / "kidney_instance-1_annotation-1.nii.gz"
        write(kidney, as_kits(scan(0, (1,))))
    return Written(path, names[:3], names[3:], 1, ("kidney", "tumor", "cyst"))


WRITERS: dict[str, Callable[[Path], Written]] = {
    "folder": write_folder,
    "kits19": write_kits19,
    "kits23": write_kits23,
    "msd": write_msd,
    "nnunet": write_nnunet,
    "synapse": write_synapse,
}
