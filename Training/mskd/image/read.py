"""Reading images and label maps; every file that cannot be used is refused in one sentence."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mskd.errors import InputError
from mskd.image.dicom import read_series
from mskd.image.geometry import Geometry, Image, LabelMap
from mskd.image.nifti import check_nifti, load_nifti
from mskd.spec import MOST_CHANNELS

FORMATS = "a NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file, or a folder of one DICOM series"
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
LARGEST_LABEL = 255
LARGEST_FILE_VALUE = 65535

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_image(path: str | Path | Sequence[str | Path]) -> Image:
    """Read a 2D or 3D image, or several as the channels of one.

    Args:
        path: A NIfTI, NRRD or MetaImage file or a DICOM folder; or a sequence of them, one a channel, on one grid.

    Returns:
        Voxels ``[C, z, y, x]`` in the file's own numeric type. A 2D image becomes one slice; a fourth axis holds the
        channels, as in the Medical Segmentation Decathlon.

    Raises:
        InputError: not an image, damaged, more than 16 channels, colour, several DICOM series, an impossible grid,
            voxels that are not finite, or channels on different grids.
    """
    if isinstance(path, (str, Path)):
        return Image(*_read(Path(path)))
    paths = [Path(entry) for entry in path]
    if not paths:
        raise InputError("No image was given: name one file for each channel.")
    channels = [_read(entry) for entry in paths]
    for entry, (_, geometry) in zip(paths[1:], channels[1:], strict=True):
        _same_grid(paths[0], channels[0][1], entry, geometry)
    return Image(np.concatenate([array for array, _ in channels]), channels[0][1])


def read_geometry(path: str | Path) -> Geometry | None:
    """The grid of an image, from the header of its file alone; its voxels are not looked at.

    Returns:
        None for a DICOM folder, and where the header is of no use.
    """
    if not Path(path).is_file():
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        _spatial_axes_and_channels(Path(path), reader)
        return _geometry(Path(path), reader, reader.GetSize())
    except (InputError, RuntimeError):
        return None


def read_labels(path: str | Path, values: Mapping[int, int] | None = None) -> LabelMap:
    """Read a label map: integers on a 2D or 3D grid, of any numeric type in the file.

    Args:
        values: What each value of the file (0 to 65535) becomes (0 to 255); None keeps them, which must be 0 to 255.

    Raises:
        InputError: whatever :func:`read_image` refuses, several channels, a value that is not an integer in that range,
            or one that ``values`` does not have.
    """
    array, geometry = _read(Path(path))
    if len(array) > 1:
        raise InputError(f"{path}: holds {len(array)} channels; a label map has one, so is this an image?")
    kind, largest = (np.uint8, LARGEST_LABEL) if values is None else (np.uint16, LARGEST_FILE_VALUE)
    low, high = array.min(), array.max()
    if low < 0 or high > largest:
        raise InputError(
            f"{path}: label values run from {low:g} to {high:g}; a label map holds integers from 0 to {largest}."
        )
    labels = array.astype(kind)
    if not np.array_equal(labels, array):
        odd = array[labels != array].flat[0]
        raise InputError(f"{path}: holds the label value {odd:g}; labels are integers, so is this an image?")
    return LabelMap((labels if values is None else _translate(path, labels, values))[0], geometry)


def _translate(path: str | Path, labels: NDArray, values: Mapping[int, int]) -> NDArray[np.uint8]:
    table, known = np.zeros(LARGEST_FILE_VALUE + 1, np.uint8), np.zeros(LARGEST_FILE_VALUE + 1, bool)
    table[list(values)], known[list(values)] = list(values.values()), True
    unknown = ~known[labels]
    if unknown.any():
        raise InputError(
            f"{path}: voxels have the value {labels[unknown].min()}, which the data set does not name (it names "
            f"{sorted(values)!s:.80}); name it in the data set's description, or relabel the file."
        )
    return table[labels]


def image_stem(path: Path) -> str | None:
    """The file's name without its image suffix; None where it has none of ``IMAGE_SUFFIXES``."""
    ends = [end for end in IMAGE_SUFFIXES if path.name.lower().endswith(end)]
    return path.name[: -max(map(len, ends))] if ends else None


def _same_grid(first: Path, grid: Geometry, second: Path, other: Geometry) -> None:
    if grid.shape != other.shape:
        what = f"{first.name} has {grid.shape} voxels (z, y, x), {second.name} has {other.shape}"
    elif not grid.matches(other):
        what = f"{first.name} and {second.name} lie up to {grid.corner_distance(other):.3g} mm apart"
    else:
        return
    raise InputError(f"The channels are on different grids: {what}; resample them onto one grid first.")


def _read(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    """Array [C, z, y, x] and geometry of one file or DICOM folder."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give {FORMATS}.")
    grid, voxels, size = read_series(path) if path.is_dir() else _read_file(path)
    if voxels is None:
        voxels = _scalars(path, grid)
    geometry = _geometry(path, grid, size)
    array = voxels.reshape(-1, *geometry.shape)
    if array.dtype.kind == "f":
        _all_finite(path, array)
    return array, geometry


def _scalars(path: Path, image: sitk.Image) -> NDArray[np.generic]:
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise InputError(
            f"{path}: holds {image.GetPixelIDTypeAsString()} voxels ({image.GetNumberOfComponentsPerPixel()} numbers "
            "each, as in a colour image); a scalar image is needed, one file for each channel."
        )
    return sitk.GetArrayFromImage(image)


def _read_file(path: Path) -> tuple[sitk.Image | sitk.ImageFileReader, NDArray[np.generic] | None, tuple[int, ...]]:
    """What says how the grid lies; the voxels where they are not in it; the grid's size (x, y, z)."""
    nifti = path.name.lower().endswith(NIFTI_SUFFIXES)
    voxels = load_nifti(path) if nifti else None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        _spatial_axes_and_channels(path, reader)
        if voxels is not None and voxels.size == math.prod(reader.GetSize()):
            return reader, voxels, reader.GetSize()
        # ITK takes a truncated gzip or a spacing of 0 in a NIfTI file without a word.
        if nifti:
            check_nifti(path)
        with _alone(path) as place:
            reader.SetFileName(str(place))
            image = reader.Execute()
        return image, None, image.GetSize()
    except RuntimeError as fault:
        raise InputError(f"{path}: {_sentence(str(fault))}") from fault


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """The file; a copy of ``a.nii.gz`` beside ``a.nii``, whose voxels ITK would take for its own."""
    if not path.name.lower().endswith(".nii.gz") or not path.with_suffix("").exists():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            copy = Path(shutil.copyfile(path, Path(folder) / path.name))
        except OSError as fault:
            raise InputError(
                f"{path}: cannot be copied to {folder} ({fault.strerror or fault}), which {path.stem} beside it makes "
                "necessary; make room there, or move one of the two files elsewhere."
            ) from fault
        yield copy


def _spatial_axes_and_channels(path: Path, reader: sitk.ImageFileReader) -> None:
    """Have the reader drop what lies beyond the fourth axis, and refuse what is no image of at most 16 channels."""
    reader.ReadImageInformation()
    size = reader.GetSize()
    if len(size) < 2 or any(side > 1 for side in size[4:]) or any(side > MOST_CHANNELS for side in size[3:4]):
        raise InputError(
            f"{path}: has {len(size)} axes of size {size}; a 2D or 3D image is needed, or one with at most "
            f"{MOST_CHANNELS} channels along a fourth axis, so give one time point."
        )
    if len(size) > 4:
        reader.SetExtractSize([*size[:4], *(0 for _ in size[4:])])


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


def _geometry(path: Path, image: sitk.Image | sitk.ImageFileReader, sides: tuple[int, ...]) -> Geometry:
    dimension = image.GetDimension()
    axes = min(dimension, 3)
    direction = np.eye(3)
    direction[:axes, :axes] = np.reshape(image.GetDirection(), (dimension, dimension))[:axes, :axes]
    spacing, origin, size = np.ones(3), np.zeros(3), np.ones(3, dtype=int)
    for numbers, found in ((spacing, image.GetSpacing()), (origin, image.GetOrigin()), (size, sides)):
        numbers[:axes] = found[:axes]
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
