"""Synapse multi-organ CT (BTCV): ``RawData/Training/img/img0001.nii.gz``, ``label/label0001.nii.gz``, ``Testing/img``.

Source: Landman et al., Multi-Atlas Labeling Beyond the Cranial Vault, https://www.synapse.org/Synapse:syn3193805.
"""

from __future__ import annotations

import re
from pathlib import Path

from mskd.data.dataset import LAYOUTS, Case, Dataset
from mskd.data.folders import images_in, require_labels, require_no_stray_labels
from mskd.data.legend import make_channels, make_legend

ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal vein and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)


class SynapseLayout:
    """The download as it unpacks, or its ``RawData``. A case is an abdomen of its own: ``img0001``, ..."""

    needs = "RawData/Training/img/img0001.nii.gz, RawData/Training/label/label0001.nii.gz"

    def recognises(self, path: Path) -> bool:
        return any((_root(path) / "Training" / "img").glob("img[0-9][0-9][0-9][0-9].nii*"))

    def open(self, path: Path) -> Dataset:
        root = _root(path)
        images, labels = _numbered(root / "Training" / "img", "img"), _numbered(root / "Training" / "label", "label")
        require_no_stray_labels(labels, images)
        testing = root / "Testing" / "img"
        require_labels(images, labels, testing)
        unlabelled = _numbered(testing, "img") if testing.is_dir() else {}
        legend = make_legend(path, dict(enumerate(ORGANS, start=1)))
        return Dataset(
            name="Synapse multi-organ CT (BTCV)",
            path=path,
            channels=make_channels(path, {"0": "CT"}),
            labels=legend.labels,
            cases=tuple(
                Case(f"img{number}", (file,), labels.get(number), f"img{number}")
                for files in (images, unlabelled)
                for number, file in files.items()
            ),
            licence="terms of use of Synapse, syn3193805",
            citation="Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault, 2015",
        )


LAYOUTS.register("synapse")(SynapseLayout())


def _root(path: Path) -> Path:
    return path / "RawData" if (path / "RawData").is_dir() else path


def _numbered(folder: Path, word: str) -> dict[str, Path]:
    """Number -> file of the files whose name is the word and a number; others are none of the data set's."""
    found = ((re.fullmatch(rf"{word}(\d{{4}})", stem), file) for stem, file in images_in(folder).items())
    return {match[1]: file for match, file in found if match}
