"""Real anatomy: the bundled hippocampus model on the MNI152 T1 template, which lies inside the nilearn wheel."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskd.errors import InputError
from mskd.evaluation.overlay import save_overlay
from mskd.events import CancelCheck, Event, Listener, never, silent
from mskd.image import LabelMap, read_image, write_labels
from mskd.inference import Engine, Region
from mskd.package import bundled_models, open_package

MODEL = "hippocampus-mr"
MEMBER = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
FETCH_SECONDS = 120
PHASE = "brain template"
# RAS mm of the MNI152 space: about 5 mm around each hippocampus, the size of the crops the model was trained on.
BOXES = {
    "left": Region((-44.0, -50.0, -29.0), (-9.0, 1.0, 6.0)),
    "right": Region((9.0, -50.0, -29.0), (44.0, 1.0, 6.0)),
}
NOTICE = """\
t1.nii.gz is the MNI152 T1 template (ICBM 2009a nonlinear symmetric), as redistributed in the Python package nilearn
({wheel}, file {member}; nilearn stores it brain-masked, as 8-bit integers).

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.

Fonov VS, Evans AC, McKinstry RC, Almli CR, Collins DL. Unbiased nonlinear average age-appropriate brain templates
from birth to adulthood. NeuroImage 47:S102 (2009).

nilearn is copyright (c) the nilearn developers, BSD-3-Clause.
"""


@dataclass(frozen=True)
class Brain:
    """What was found: the picture, the segmentation, and mL per side and label."""

    overlay: Path
    segmentation: Path
    volumes: dict[str, dict[str, float]]
    milliseconds: float


def segment_brain(
    folder: Path, device: str = "auto", on_event: Listener = silent, cancelled: CancelCheck = never
) -> Brain | str:
    """Segment both hippocampi of the template.

    Args:
        folder: Receives the template with its notice, the segmentation and the picture.

    Returns:
        The result, or one sentence that says why there is none.
    """
    if MODEL not in bundled_models():
        return f"The bundled model '{MODEL}' is not part of this installation, so the brain template was left out."
    try:
        template = fetch_template(folder)
    except InputError as missing:
        return str(missing)
    on_event(Event(PHASE, 1, 3))
    image = read_image(template)
    engine = Engine(open_package(MODEL), device)
    results = {}
    for side, box in BOXES.items():
        results[side] = engine.run(image, region=box, cancelled=cancelled)
        on_event(Event(PHASE, 1 + len(results), 3))
    merged = np.maximum(*(result.labels.array for result in results.values()))  # the boxes do not meet
    labels = engine.package.manifest.labels
    found = LabelMap(merged, image.geometry)
    segmentation, overlay = folder / "hippocampus.seg.nrrd", folder / "overlay.png"
    write_labels(segmentation, found, labels, overwrite=True)
    save_overlay(overlay, image, None, {"MNI152 template": found}, labels, margin=12.0)
    per_voxel = image.geometry.voxel_volume / 1000.0
    volumes = {
        side: {label.name: per_voxel * int(np.sum(result.labels.array == label.value)) for label in labels}
        for side, result in results.items()
    }
    spent = sum(float(result.report["milliseconds"]["total"]) for result in results.values())
    return Brain(overlay, segmentation, volumes, spent)


def fetch_template(folder: Path) -> Path:
    """The template's path, fetched with pip unless it is there already; its copyright notice lies beside it.

    Raises:
        InputError: one sentence that says what could not be fetched, and why.
    """
    target = folder / "t1.nii.gz"
    if target.is_file() and (folder / "NOTICE.txt").is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", place, "nilearn"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise _unreachable(f"{type(fault).__name__} after at most {FETCH_SECONDS} s") from fault
        wheels = sorted(Path(place).glob("nilearn-*.whl"))
        if not wheels:
            raise _unreachable(_last_line(done.stderr) or f"pip ended with code {done.returncode}")
        extract_template(wheels[0], target)
    return target


def extract_template(wheel: Path, target: Path) -> None:
    """Take the one file out of the wheel, and write its notice beside it.

    Raises:
        InputError: the wheel does not hold it, or is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.rpartition("/")[2] == MEMBER]
            if not members:
                raise _unreachable(f"{wheel.name} does not hold {MEMBER}")
            content = archive.read(members[0])
    except zipfile.BadZipFile as fault:
        raise _unreachable(f"{wheel.name} is damaged: {fault}") from fault
    notice = NOTICE.format(wheel=wheel.name, member=members[0])
    (target.parent / "NOTICE.txt").write_text(notice, encoding="utf-8")
    target.write_bytes(content)


def _unreachable(reason: str) -> InputError:
    return InputError(
        f"The MNI152 template could not be fetched from the package index ({reason}), so it was left out."
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else ""
