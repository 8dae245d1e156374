"""Kidney tumour CT, KiTS19 and KiTS23: ``case_00000/imaging.nii.gz`` and ``segmentation.nii.gz``.

Sources: https://github.com/neheller/kits19, https://github.com/neheller/kits23. The files store (slices, y, x), which
their affine says; it alone decides how a volume lies.
"""

from __future__ import annotations

from pathlib import Path

from mskd.data.dataset import LAYOUTS, Case, Dataset
from mskd.data.legend import make_channels, make_legend
from mskd.errors import InputError

CASES = "case_[0-9][0-9][0-9][0-9][0-9]"
LARGEST_OF_KITS19 = 299


class KitsLayout:
    """The repository as cloned, or its folder of cases; those without a segmentation (KiTS19's 210 on) are unlabelled.

    It is KiTS23 if there is a ``kits23.json``, a case with ``instances/``, or a case number above 299; else KiTS19.
    """

    def __init__(self, year: int, labels: tuple[str, ...], citation: str) -> None:
        self.year = year
        self.labels = labels
        self.citation = citation
        sign = "kits23.json or a case with instances/" if year == 23 else "no sign of KiTS23"
        self.needs = f"case_00000/imaging.nii.gz, case_00000/segmentation.nii.gz, ... and {sign}"

    def recognises(self, path: Path) -> bool:
        cases = _cases(path)
        known = any((case / "segmentation.nii.gz").is_file() for case in cases)
        return known and _year(cases) == self.year

    def open(self, path: Path) -> Dataset:
        folders = _cases(path)
        bare = [folder for folder in folders if not (folder / "imaging.nii.gz").is_file()]
        if bare:
            raise InputError(
                f"{bare[0]}: there is no imaging.nii.gz in it ({len(bare)} such cases of {len(folders)}); fetch the "
                "images with the data set's own download script, or remove the case."
            )
        legend = make_legend(path, dict(enumerate(self.labels, start=1)))
        return Dataset(
            name=f"KiTS{self.year}",
            path=path,
            channels=make_channels(path, {"0": "CT"}),
            labels=legend.labels,
            cases=tuple(_case(folder) for folder in folders),
            licence="CC BY-NC-SA 4.0",
            citation=self.citation,
        )


LAYOUTS.register("kits19")(
    KitsLayout(19, ("kidney", "tumor"), "Heller et al., The KiTS19 Challenge Data, arXiv:1904.00445 (2019)")
)
LAYOUTS.register("kits23")(
    KitsLayout(23, ("kidney", "tumor", "cyst"), "Heller et al., The KiTS21 Challenge, arXiv:2307.01984 (2023)")
)


def _cases(path: Path) -> list[Path]:
    """The folders of cases: in ``path``, or where a clone has them (``data``, ``dataset``)."""
    for root in (path, path / "data", path / "dataset"):
        found = sorted(folder for folder in root.glob(CASES) if folder.is_dir())
        if found:
            return found
    return []


def _year(cases: list[Path]) -> int:
    signs = (
        (cases[0].parent / "kits23.json").is_file(),
        any((case / "instances").is_dir() for case in cases),
        int(cases[-1].name.removeprefix("case_")) > LARGEST_OF_KITS19,
    )
    return 23 if any(signs) else 19


def _case(folder: Path) -> Case:
    labels = folder / "segmentation.nii.gz"
    images = (folder / "imaging.nii.gz",)
    return Case(folder.name, images, labels if labels.is_file() else None, patient=folder.name)
