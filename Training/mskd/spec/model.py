"""The manifest of a model package (``model.json``): everything about a network except its weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from mskd.spec.base import Strict
from mskd.spec.labels import Label
from mskd.spec.trainingdata import TrainingData

SCHEMA_VERSION = "1.1"
"""The minor number grows with each optional key: an older program refuses the key, a newer one needs none of them."""
MOST_CHANNELS = 16

Positive = Annotated[float, Field(gt=0, le=1e4)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=4000)]
Title = Annotated[str, Field(min_length=1, max_length=100)]
Patch = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=2, max_length=3)]


def _one_of_each_pair(orientation: str) -> str:
    if not all(set(pair) & set(orientation) for pair in ("LR", "AP", "SI")):
        raise ValueError("orientation needs one letter of each pair L/R, A/P, S/I")
    return orientation


Orientation = Annotated[str, Field(pattern=r"^[LRAPSI]{3}$"), AfterValidator(_one_of_each_pair)]


class NetworkSpec(Strict):
    """A registered network by name, and the keyword arguments that build it."""

    name: Text
    arguments: dict[str, Any]


class Channel(Strict):
    """One input channel. ``modality`` is a DICOM modality (CT, MR, PT, ...)."""

    name: Text
    modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")]


class Normalization(Strict):
    """Intensity normalisation, the same for every channel.

    Args:
        name: ``zscore`` subtracts the mean and divides by the standard deviation of the voxels at hand (the whole
            image, or the region of interest); ``clip_zscore`` clips to ``lower..upper`` and uses the fixed ``mean``
            and ``std`` of the training foreground (CT, nnU-Net's scheme); ``none`` leaves the voxels as they are.
    """

    name: Literal["zscore", "clip_zscore", "none"]
    lower: float | None = None
    upper: float | None = None
    mean: float | None = None
    std: Positive | None = None

    @model_validator(mode="after")
    def _complete(self) -> Normalization:
        given = [self.lower, self.upper, self.mean, self.std]
        if self.name == "clip_zscore":
            if any(value is None for value in given):
                raise ValueError("clip_zscore needs lower, upper, mean and std")
            if not self.lower < self.upper:  # type: ignore[operator]
                raise ValueError("lower must be below upper")
        elif any(value is not None for value in given):
            raise ValueError(f"lower, upper, mean and std belong to clip_zscore, not to {self.name}")
        return self


class Metric(Strict):
    """One measured figure: mean and standard deviation over cases of a split, for one label (``mean``: of all labels).

    ``network`` says whose figure it is: the package's own, or one that it is to be compared with on the same cases.
    """

    metric: Literal["dice", "hd95", "nsd", "volume_error"]
    label: Text
    mean: float
    std: float
    cases: Annotated[int, Field(ge=1)]
    split: Literal["train", "validation", "test", "external"]
    network: Literal["this model", "its teacher", "the same network without distillation"] = "this model"


class Provenance(Strict):
    """Where the weights come from."""

    method: Text
    data: Text
    data_fingerprint: Digest | None = None
    teacher: Text | None = None
    teacher_fingerprint: Digest | None = None
    recipe: dict[str, Any] = {}
    seed: int | None = None
    versions: dict[str, str] = {}


class Manifest(Strict):
    """What ``model.json`` holds.

    ``spacing`` and ``patch`` are in array order: (z, y, x), mm and voxels; a 2D model has a 2-item patch (y, x) and
    takes each z slice alone. A ``spacing`` item of ``None`` keeps the image's own spacing along that axis.
    ``orientation`` names the direction in which x, y and z grow: ``LPS`` is an identity direction matrix in ITK.
    After the network, labels in ``largest_component`` keep their largest piece, and those in ``fill_holes`` the
    background that they enclose. ``training_data`` is what an image is held against before it is segmented.
    ``files`` maps each other file of the package to its SHA-256.
    """

    schema_version: str = SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "1.0.0"
    title: Title
    description: Text = ""
    network: NetworkSpec
    channels: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=MOST_CHANNELS)]
    spacing: tuple[Positive | None, Positive | None, Positive | None]
    orientation: Orientation = "LPS"
    normalization: Normalization
    patch: Patch
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=255)]
    largest_component: tuple[str, ...] = ()
    fill_holes: tuple[str, ...] = ()
    training_data: TrainingData | None = None
    provenance: Provenance
    metrics: tuple[Metric, ...] = ()
    licence: Text
    citation: Text = ""
    intended_use: Text
    files: dict[str, Digest] = {}

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        if [label.value for label in labels] != list(range(1, len(labels) + 1)):
            raise ValueError("label values must be 1, 2, 3, ... in this order: they are the network's output channels")
        if len({label.name for label in labels}) != len(labels):
            raise ValueError("label names must differ from one another")
        return labels

    @model_validator(mode="after")
    def _known_components(self) -> Manifest:
        names = {label.name for label in self.labels}
        for key, wanted in (("largest_component", self.largest_component), ("fill_holes", self.fill_holes)):
            if unknown := set(wanted) - names:
                raise ValueError(f"{key} names {sorted(unknown)}, which are not labels of this model")
        return self

    @model_validator(mode="after")
    def _facts_of_each_channel(self) -> Manifest:
        known = self.training_data
        if known is not None and len(known.intensities) != len(self.channels):
            raise ValueError(f"training_data describes {len(known.intensities)} channels of {len(self.channels)}")
        return self

    @property
    def dim(self) -> int:
        """2 for a slice-wise network, 3 for a volumetric one."""
        return len(self.patch)

    @property
    def classes(self) -> int:
        """Number of output channels, background included."""
        return len(self.labels) + 1
