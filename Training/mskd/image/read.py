"""Reading images and label maps; every file that cannot be used is refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mskd.errors import InputError
from mskd.image.dicom import read_series
from mskd.image.geometry import Geometry, Image, LabelMap
from mskd.image.nifti import check_nifti

FORMATS = "a NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file, or a folder of one DICOM series"
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
LARGEST_LABEL = 255

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_image(path: str | Path | Sequence[str | Path]) -> Image:
    """Read a 2D or 3D scalar image, or several as the channels of one.

    Args:
        path: A NIfTI, NRRD or MetaImage file or a DICOM folder; or a sequence of them, one a channel, on one grid.

    Returns:
        Voxels ``[C, z, y, x]`` in the file's own numeric type. A 2D image becomes one slice.

    Raises:
        InputError: not an image, damaged, 4D, colour, several DICOM series, an impossible grid, voxels that are not
            finite, or channels on different grids.
    """
    if isinstance(path, (str, Path)):
        array, geometry = _read(Path(path))
        return Image(array[None], geometry)
    paths = [Path(entry) for entry in path]
    if not paths:
        raise InputError("No image was given: name one file for each channel.")
    channels = [_read(entry) for entry in paths]
    for entry, (_, geometry) in zip(paths[1:], channels[1:], strict=True):
        _same_grid(paths[0], channels[0][1], entry, geometry)
    return Image(np.stack([array for array, _ in channels]), channels[0][1])


def read_labels(path: str | Path) -> LabelMap:
    """Read a label map: integers 0 to 255 on a 2D or 3D grid, of any numeric type in the file.

    Raises:
        InputError: whatever :func:`read_image` refuses, or a value that is not an integer from 0 to 255.
    """
    array, geometry = _read(Path(path))
    low, high = array.min(), array.max()
    if low < 0 or high > LARGEST_LABEL:
        raise InputError(
            f"{path}: label values run from {low:g} to {high:g}; a label map holds integers from 0 to {LARGEST_LABEL}."
        )
    labels = array.astype(np.uint8)
    if not np.array_equal(labels, array):
        odd = array[labels != array].flat[0]
        raise InputError(f"{path}: holds the label value {odd:g}; labels are integers, so is this an image?")
    return LabelMap(labels, geometry)


def _same_grid(first: Path, grid: Geometry, second: Path, other: Geometry) -> None:
    if grid.shape != other.shape:
        what = f"{first.name} has {grid.shape} voxels (z, y, x), {second.name} has {other.shape}"
    elif not grid.matches(other):
        what = f"{first.name} and {second.name} lie up to {grid.corner_distance(other):.3g} mm apart"
    else:
        return
    raise InputError(f"The channels are on different grids: {what}; resample them onto one grid first.")


def _read(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    """Array [z, y, x] and geometry of one scalar image."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give {FORMATS}.")
    image = read_series(path) if path.is_dir() else _read_file(path)
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise InputError(
            f"{path}: holds {image.GetPixelIDTypeAsString()} voxels ({image.GetNumberOfComponentsPerPixel()} numbers "
            "each, as in a colour image); a scalar image is needed, one file for each channel."
        )
    geometry = _geometry(path, image)
    array = sitk.GetArrayFromImage(image).reshape(geometry.shape)
    if array.dtype.kind == "f":
        _all_finite(path, array)
    return array, geometry


def _read_file(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        # ITK takes a truncated gzip or a spacing of 0 in a NIfTI file without a word: checked here, while it reads.
        with ThreadPoolExecutor(1) as pool:
            checked = pool.submit(check_nifti, path) if path.name.lower().endswith(NIFTI_SUFFIXES) else None
            try:
                _three_axes(path, reader)
                return reader.Execute()
            finally:
                if checked is not None:
                    checked.result()
    except RuntimeError as fault:
        raise InputError(f"{path}: {_sentence(str(fault))}") from fault


def _three_axes(path: Path, reader: sitk.ImageFileReader) -> None:
    reader.ReadImageInformation()
    size = reader.GetSize()
    if len(size) < 2 or any(side > 1 for side in size[3:]):
        raise InputError(
            f"{path}: has {len(size)} axes of size {size}; a 2D or 3D image is needed, so give one time point, and one "
            "file for each channel."
        )
    if len(size) > 3:
        reader.SetExtractSize([*size[:3], *(0 for _ in size[3:])])


def _sentence(fault: str) -> str:
    """What ITK's exception means for the person who chose the file."""
    if "Unable to determine ImageIO" in fault:
        return f"is not an image that can be read; give {FORMATS}."
    if "Zero-valued spacing" in fault or "Negative spacing" in fault:
        return "has a spacing that is 0 or negative; each must be above 0, so correct the image header."
    if "determinant" in fault:
        return "has a singular direction matrix; the image axes must span space, so correct the image header."
    if "orthonormal" in fault:
        return "has axes that are not at right angles to one another; resample it onto a right-angled grid first."
    reason = " ".join(fault.strip().splitlines()[-1].split())
    return f"is damaged, truncated or not permitted to be read ({reason}); copy or export it again."


def _geometry(path: Path, image: sitk.Image) -> Geometry:
    axes = image.GetDimension()
    direction = np.eye(3)
    direction[:axes, :axes] = np.reshape(image.GetDirection(), (axes, axes))
    spacing, origin, size = np.ones(3), np.zeros(3), np.ones(3, dtype=int)
    spacing[:axes], origin[:axes], size[:axes] = image.GetSpacing(), image.GetOrigin(), image.GetSize()
    try:
        return Geometry(
            shape=(int(size[2]), int(size[1]), int(size[0])),
            spacing=(float(spacing[2]), float(spacing[1]), float(spacing[0])),
            origin=(float(origin[0]), float(origin[1]), float(origin[2])),
            direction=tuple(float(number) for number in direction.flat),
        )
    except InputError as fault:
        raise InputError(f"{path}: {fault}") from fault


def _all_finite(path: Path, array: NDArray[np.generic]) -> None:
    # The sum is finite when all voxels are, and costs no temporary array.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InputError(
            f"{path}: {bad} of {array.size} voxels are NaN or infinite; replace them, for instance by the value of air."
        )
