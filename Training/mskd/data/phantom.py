"""A multi-organ, CT-like abdominal phantom made by code: something real enough to learn from, free to share.

An anatomy is a set of deformed ellipsoids in physical space (LPS mm), so that it can be sampled on any grid, oblique
and anisotropic ones too. Neighbouring organs touch and differ by less than the noise; unlabelled bowel has the same
intensities as the organs. What tells the organs apart is shape and place, never a threshold.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from mskd.errors import Cancelled, SettingsError
from mskd.events import CancelCheck, Event, Listener, never, silent
from mskd.image import Geometry

Floats = npt.NDArray[np.float32]
Vector = tuple[float, float, float]

ORGANS = {1: "liver", 2: "spleen", 3: "stomach", 4: "kidney", 5: "pancreas"}
SHAPE, SPACING = (40, 48, 48), (4.0, 4.0, 4.0)
AIR, FAT, MUSCLE, BONE, AORTA = -1000.0, -95.0, 52.0, 260.0, 150.0
SUPERSAMPLING = 2  # samples per voxel and axis: partial volume at every boundary
NOISE = 13.0  # HU, standard deviation
BIAS = 10.0  # HU, amplitude of the slow shading across the body
BODY_RADII = (89.0, 71.0)
OUTSIDE = 9.0  # any field value above 1


@dataclass(frozen=True)
class Blob:
    """An ellipsoid: centre and radii in mm, and the rotation that takes LPS offsets to its own axes."""

    centre: Vector
    radii: Vector
    rotation: npt.NDArray[np.float64]

    def field(self, points: Floats) -> Floats:
        """Squared distance in radii, 1 on the surface: ``[n, 3]`` -> ``[n]``."""
        scale = (self.rotation / np.asarray(self.radii)[:, None]).astype(np.float32)
        local = (points - np.asarray(self.centre, np.float32)) @ scale.T
        return np.einsum("ni,ni->n", local, local)


@dataclass(frozen=True)
class Tissue:
    """Blobs of one kind: an organ (label 1 to 5) or an unlabelled structure (label 0), with its intensity in HU."""

    label: int
    intensity: float
    blobs: tuple[Blob, ...]


# Label -> blobs as (centre, radii) and mean HU. LPS mm: x grows to the left, y to the back, z to the head.
TEMPLATE: dict[int, tuple[float, tuple[tuple[Vector, Vector], ...]]] = {
    1: (106.0, (((-40, -6, 20), (37, 43, 38)), ((-8, -36, 26), (30, 17, 22)))),
    2: (112.0, (((55, 20, 24), (17, 28, 29)),)),
    3: (98.0, (((31, -26, 16), (25, 24, 32)),)),
    4: (118.0, (((37, 37, -22), (14, 13, 28)), ((-39, 38, -28), (14, 13, 28)))),
    5: (100.0, (((8, 2, -12), (34, 11, 12)),)),
}
BOWEL_LOOPS = 7
BOWEL_INTENSITY = 104.0


class Wave:
    """A sum of sinusoids of physical position: smooth, random, defined everywhere."""

    def __init__(self, generator: np.random.Generator, *, amplitude: float, longest: float, shortest: float) -> None:
        directions = generator.normal(size=(3, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = generator.uniform(shortest, longest, (3, 1))
        self._waves = (2 * np.pi * directions / lengths).astype(np.float32)
        self._phases = generator.uniform(0, 2 * np.pi, 3).astype(np.float32)
        self._amplitude = np.float32(amplitude / np.sqrt(3))

    def __call__(self, points: Floats) -> Floats:
        return self._amplitude * np.sin(points @ self._waves.T + self._phases).sum(axis=1)


class Anatomy:
    """One subject: organs of random shape, place and intensity in a random pose. The same seed gives the same one."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng([seed, 1])
        self._pose = _rotation(generator, 10.0) * generator.uniform(0.92, 1.08)
        self._shift = generator.uniform(-8, 8, 3)
        self._waves = [Wave(generator, amplitude=5.0, longest=160.0, shortest=70.0) for _ in range(3)]
        self._bias = Wave(generator, amplitude=BIAS, longest=500.0, shortest=250.0)
        self._tissues = [*_organs(generator), *_bowel(generator)]

    def sample(self, points: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
        """Label and intensity (HU, without noise) at physical points.

        Args:
            points: ``[n, 3]``, LPS mm.

        Returns:
            labels ``[n]``, intensities ``[n]``.
        """
        home = (points - self._shift.astype(np.float32)) @ self._pose.astype(np.float32)
        body = (home[:, 0] / BODY_RADII[0]) ** 2 + (home[:, 1] / BODY_RADII[1]) ** 2
        labels = np.zeros(len(points), np.uint8)
        values = np.select([body < 0.80, body < 1.0], [MUSCLE, FAT], AIR).astype(np.float32)
        inside = np.flatnonzero(body < 0.86)
        home = home[inside]
        warped = home + np.stack([wave(home) for wave in self._waves], axis=1)
        labels[inside], values[inside] = self._organs_at(warped, values[inside])
        return labels, np.where(body < 1.0, values + self._bias(points), values)

    def _organs_at(self, points: Floats, values: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
        """The nearest tissue in units of its own radius wins, so that neighbours meet in a smooth surface."""
        labels, best = np.zeros(len(points), np.uint8), np.ones(len(points), np.float32)
        for tissue in self._tissues:
            for blob in tissue.blobs:
                near = np.flatnonzero(
                    np.abs(points - np.asarray(blob.centre, np.float32)).max(axis=1) < max(blob.radii)
                )
                field = blob.field(points[near])
                won = near[field < best[near]]
                best[won] = field[field < best[near]]
                labels[won], values[won] = tissue.label, tissue.intensity
        spine = (points[:, 0] / 17) ** 2 + ((points[:, 1] - 50) / 13) ** 2 < 1
        aorta = (points[:, 0] - 5) ** 2 + (points[:, 1] - 28) ** 2 < 49
        for structure, intensity in ((spine, BONE), (aorta, AORTA)):
            labels[structure], values[structure] = 0, intensity
        return labels, values


def render(anatomy: Anatomy, geometry: Geometry, seed: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """What a scanner would make of an anatomy: partial volume, shading and correlated noise.

    Args:
        geometry: Any grid; the anatomy's centre is the physical origin.
        seed: Of the noise.

    Returns:
        Image in HU and labels, both ``[z, y, x]``. A voxel carries the label that fills most of it.
    """
    votes = np.zeros((len(ORGANS) + 1, *geometry.shape), np.uint8)
    image = np.zeros(geometry.shape, np.float32)
    offsets = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    for offset in np.stack(np.meshgrid(offsets, offsets, offsets), axis=-1).reshape(-1, 3):
        labels, values = anatomy.sample(_points(geometry, offset))
        image += values.reshape(geometry.shape) / SUPERSAMPLING**3
        for label in range(len(ORGANS) + 1):
            votes[label] += labels.reshape(geometry.shape) == label
    generator = np.random.default_rng([seed, 2])
    noise = ndimage.gaussian_filter(generator.normal(size=geometry.shape).astype(np.float32), 0.6)
    image += noise * np.float32(NOISE / noise.std())
    return np.rint(np.clip(image, -1024, 3071)).astype(np.int16), votes.argmax(axis=0).astype(np.uint8)


def centred_geometry(shape: tuple[int, int, int], spacing: Vector, direction: npt.NDArray[np.float64]) -> Geometry:
    """A grid of this shape (z, y, x) and spacing (z, y, x) mm whose centre is the physical origin."""
    middle = (np.asarray(shape[::-1]) - 1) / 2 * np.asarray(spacing[::-1])
    x, y, z = (float(value) for value in -direction @ middle)
    return Geometry(shape=shape, spacing=spacing, origin=(x, y, z), direction=tuple(direction.ravel().tolist()))


def oblique_geometry() -> Geometry:
    """An awkward grid for the phantom: rotated about two axes, flipped in y, thick slices, uneven in plane."""
    turn = _axis_rotation(2, 17.0) @ _axis_rotation(0, -11.0) @ np.diag([1.0, -1.0, 1.0])
    return centred_geometry((32, 84, 70), (5.0, 2.4, 2.9), turn)


def make_phantom_dataset(
    folder: Path,
    cases: int = 32,
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = SHAPE,
    spacing: Vector = SPACING,
    on_event: Listener = silent,
    cancelled: CancelCheck = never,
) -> Path:
    """Write a labelled data set in the Medical Segmentation Decathlon's layout.

    Args:
        folder: Created; it must not hold a data set yet.
        cases: Number of subjects, each with its own anatomy.
        seed: The same seed writes the same voxels.
        shape: Voxels, (z, y, x).
        spacing: mm, (z, y, x).

    Returns:
        ``folder``.

    Raises:
        SettingsError: fewer than one case, or the folder already holds a data set.
        Cancelled: asked to stop; ``dataset.json`` was not written, so that the folder is no data set.
    """
    if cases < 1:
        raise SettingsError(f"The phantom data set needs at least 1 case, not {cases}; raise the number.")
    description = folder / "dataset.json"
    if description.exists():
        raise SettingsError(f"{folder}: there is a data set already; choose another folder or remove this one.")
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    geometry = centred_geometry(shape, spacing, np.eye(3))
    entries = []
    for index in range(cases):
        if cancelled():
            raise Cancelled("Cancelled while the phantom was made; it is not complete.")
        subject = 1000 * seed + index
        name = f"phantom_{index:03d}.nii.gz"
        image, labels = render(Anatomy(subject), geometry, subject)
        write_array(folder / "imagesTr" / name, image, geometry)
        write_array(folder / "labelsTr" / name, labels, geometry)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        on_event(Event("phantom", index + 1, cases))
    description.write_text(json.dumps(_description(entries, seed), indent=1) + "\n", encoding="utf-8")
    return folder


def write_array(path: Path, array: npt.NDArray[np.generic], geometry: Geometry) -> None:
    """Write a ``[z, y, x]`` array on its grid."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    sitk.WriteImage(image, str(path), useCompression=True)


def _description(entries: list[dict[str, str]], seed: int) -> dict[str, object]:
    return {
        "name": "Abdominal phantom",
        "description": f"Synthetic abdominal CT made by mskd.data.phantom, seed {seed}: no patient is in it.",
        "licence": "CC0-1.0",
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(value): name for value, name in ORGANS.items()}},
        "numTraining": len(entries),
        "training": entries,
    }


def _points(geometry: Geometry, offset: npt.NDArray[np.float64]) -> Floats:
    """LPS mm of every voxel centre moved by ``offset`` voxels (z, y, x): ``[n, 3]``."""
    z, y, x = (np.arange(side) + shift for side, shift in zip(geometry.shape, offset, strict=True))
    grid = np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1).reshape(-1, 3) * np.asarray(geometry.spacing)
    direction = np.asarray(geometry.direction).reshape(3, 3)
    return (grid[:, ::-1] @ direction.T + np.asarray(geometry.origin)).astype(np.float32)


def _organs(generator: np.random.Generator) -> list[Tissue]:
    tissues = []
    for label, (intensity, blobs) in TEMPLATE.items():
        shapes = tuple(
            Blob(
                centre=_vector(np.add(centre, generator.normal(0, 3.0, 3))),
                radii=_vector(np.multiply(radii, generator.uniform(0.85, 1.15, 3))),
                rotation=_rotation(generator, 14.0),
            )
            for centre, radii in blobs
        )
        tissues.append(Tissue(label, intensity + float(generator.normal(0, 8.0)), shapes))
    return tissues


def _bowel(generator: np.random.Generator) -> list[Tissue]:
    """Unlabelled loops below and in front of the organs, with the organs' intensities."""
    loops = []
    for _ in range(BOWEL_LOOPS):
        centre = generator.uniform((-55, -48, -78), (55, 5, -25))
        blob = Blob(_vector(centre), _vector(generator.uniform(9, 18, 3)), _rotation(generator, 90.0))
        loops.append(Tissue(0, BOWEL_INTENSITY + float(generator.normal(0, 12.0)), (blob,)))
    return loops


def _vector(values: npt.ArrayLike) -> Vector:
    x, y, z = (float(value) for value in np.asarray(values))
    return x, y, z


def _rotation(generator: np.random.Generator, degrees: float) -> npt.NDArray[np.float64]:
    turns = [_axis_rotation(axis, angle) for axis, angle in enumerate(generator.uniform(-degrees, degrees, 3))]
    return np.asarray(turns[0] @ turns[1] @ turns[2])


def _axis_rotation(axis: int, degrees: float) -> npt.NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    first, second = (index for index in range(3) if index != axis)
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[second, first] = np.sin(angle)
    matrix[first, second] = -matrix[second, first]
    return matrix
