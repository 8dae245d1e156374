"""Writing label maps: plain volumes, and Slicer's segmentation file with names, colours and terminology."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mskd.errors import InputError, SettingsError
from mskd.files import require_writable_folder
from mskd.image.geometry import Geometry, Image, LabelMap
from mskd.image.nifti import NIFTI1_OFFSET, check_nifti, pack_nifti, packs_quickly
from mskd.spec import Code, Label, Terminology

SEGMENTATION = ".seg.nrrd"
LABEL_SUFFIXES = (SEGMENTATION, ".nii.gz", ".nii", ".nrrd", ".mha")
CATEGORY_CONTEXT = "Segmentation category and type - DICOM master list"
REGION_CONTEXT = "Anatomic codes - DICOM master list"


def label_suffix(path: str | Path) -> str:
    """The suffix that decides the format.

    Raises:
        SettingsError: it is none of those that can be written.
    """
    name = Path(path).name.lower()
    for suffix in LABEL_SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return suffix
    raise SettingsError(f"{path}: the output must end in one of {', '.join(LABEL_SUFFIXES)}.")


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, an output that could not be written afterwards.

    Raises:
        SettingsError: unknown suffix, a path that exists (without ``overwrite``) or is a folder, a folder that is not
            there or not writable.
    """
    target = Path(path)
    label_suffix(target)
    if target.is_dir():
        raise SettingsError(f"{target} is a folder; name the file to write.")
    if target.exists() and not overwrite:
        raise SettingsError(f"{target} exists already; choose another name, or allow it to be replaced (--overwrite).")
    if not target.absolute().parent.is_dir():
        raise SettingsError(f"The folder {target.absolute().parent} does not exist; create it first.")
    require_writable_folder(target.absolute().parent, "The output folder")


def write_labels(path: str | Path, labels: LabelMap, names: Sequence[Label], *, overwrite: bool = False) -> None:
    """Write a label map on its own grid, as a whole or not at all.

    Args:
        path: ``.seg.nrrd`` carries names, colours and terminology; ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha`` do not.
        labels: What to write.
        names: The labels of the model; every one becomes a segment, found in the map or not.
        overwrite: Replace a file that is there.

    Raises:
        SettingsError: unknown suffix, or an existing path without ``overwrite``. InputError: the disk is full or the
            place is not writable; nothing is left there and an existing file is kept.
    """
    segmentation = label_suffix(path) == SEGMENTATION
    metadata = segmentation_metadata(names, labels.array.shape) if segmentation else {}
    _write(Path(path), labels.array, labels.geometry, metadata, overwrite=overwrite)


def write_volume(path: str | Path, volume: Image, *, overwrite: bool = False) -> None:
    """Write the first channel of an image as :func:`write_labels` writes labels; ``.seg.nrrd`` is refused.

    Raises:
        SettingsError, InputError: as there.
    """
    check_volume(path, overwrite=overwrite)
    _write(Path(path), volume.array[0], volume.geometry, {}, overwrite=overwrite)


def check_volume(path: str | Path, *, overwrite: bool) -> None:
    """What :func:`check_output` refuses, and a segmentation file, which cannot hold a volume."""
    if label_suffix(path) == SEGMENTATION:
        raise SettingsError(f"{path}: a volume cannot be written as a segmentation; name a .nii.gz or .nrrd file.")
    check_output(path, overwrite=overwrite)


def _write(target: Path, voxels: NDArray, geometry: Geometry, metadata: Mapping[str, str], *, overwrite: bool) -> None:
    check_output(target, overwrite=overwrite)
    suffix = label_suffix(target)
    temporary = target.with_name(f".{secrets.token_hex(8)}{suffix}")
    try:
        if suffix == ".nii.gz" and packs_quickly(voxels):
            pack_nifti(temporary, voxels, _one_voxel(temporary, voxels, geometry))
        else:
            image = _to_itk(voxels, geometry)
            for key, value in metadata.items():
                image.SetMetaData(key, value)
            sitk.WriteImage(image, str(temporary), useCompression=suffix != ".nii")
            _is_whole(temporary, suffix)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except (RuntimeError, OSError, InputError) as fault:
        raise InputError(
            f"{target} cannot be written: is the disk full, or the folder not writable? ({_reason(fault)}) "
            "Nothing was left there; make room or choose another place."
        ) from fault
    finally:
        temporary.unlink(missing_ok=True)


def segmentation_metadata(names: Sequence[Label], shape: Sequence[int]) -> dict[str, str]:
    """The key/value pairs of Slicer's segmentation file format for labels that share one layer of ``shape`` (z, y, x).

    Source: https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
    """
    extent = " ".join(f"0 {side - 1}" for side in reversed(shape))
    pairs = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for index, label in enumerate(names):
        tags = f"TerminologyEntry:{terminology_entry(label.terminology)}|" if label.terminology else ""
        segment = {
            "ID": f"Segment_{label.value}",
            "Name": " ".join(label.name.split()),
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{channel / 255:.6f}" for channel in label.color),
            "ColorAutoGenerated": "0",
            "LabelValue": str(label.value),
            "Layer": "0",
            "Extent": extent,
            "Tags": f"Segmentation.Status:inprogress|{tags}",
        }
        pairs.update({f"Segment{index}_{key}": value for key, value in segment.items()})
    return pairs


def terminology_entry(terminology: Terminology) -> str:
    """Slicer's one-line form of a coded label: context~category~type~modifier~context~region~modifier."""
    return "~".join(
        [
            CATEGORY_CONTEXT,
            _code(terminology.category),
            _code(terminology.type),
            _code(terminology.type_modifier),
            REGION_CONTEXT,
            _code(terminology.region),
            _code(terminology.region_modifier),
        ]
    )


def _code(code: Code | None) -> str:
    parts = [code.scheme, code.value, code.meaning] if code else ["", "", ""]
    # The separators of the format have no escape in it.
    return "^".join(" ".join(part.translate(str.maketrans("~^|", "   ")).split()) for part in parts)


def _to_itk(array: NDArray, geometry: Geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def _is_whole(path: Path, suffix: str) -> None:
    """Read the NIfTI bytes back: ITK's writer says nothing when the disk fills up."""
    if suffix in (".nii.gz", ".nii") and not check_nifti(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _one_voxel(beside: Path, voxels: NDArray, geometry: Geometry) -> bytes:
    """ITK's NIfTI file of the first voxel alone: all that it says of the axes holds for the whole image."""
    place = beside.with_suffix("").with_suffix(".nii")
    try:
        sitk.WriteImage(_to_itk(voxels[:1, :1, :1], geometry), str(place))
        content = place.read_bytes()
        if len(content) != NIFTI1_OFFSET + voxels.itemsize:  # of a full disk, ITK says nothing
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return content
    finally:
        place.unlink(missing_ok=True)


def _reason(fault: Exception) -> str:
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return " ".join(str(fault).strip().splitlines()[-1].split())
