"""A recipe: everything that decides a run except the data set's path and the output folder."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mskd.distillation.settings import DistillationSettings
from mskd.errors import SettingsError
from mskd.spec import Label, Normalization, Strict, Terminology, validate
from mskd.spec.labels import Byte
from mskd.spec.model import Orientation, Patch, Positive, Text, Title
from mskd.training.precision import PrecisionName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(__file__).resolve().parents[1]
RECIPES = (PACKAGE.parent / "recipes", PACKAGE / "recipes")
"""Beside the package in a checkout or a Slicer extension, inside it where pip installed it."""

BUDGET_PATTERN = r"^(laptop|gpu|[1-9][0-9]{0,2}GB)$"
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Spacing = Annotated[float, Field(ge=0, le=1e4)]
LossWeight = Annotated[float, Field(ge=0, le=100)]


class InputSettings(Strict):
    """What the network sees: spacing (z, y, x) in mm, orientation, intensities, and the patch it is trained on.

    A spacing of 0 keeps the image's own along that axis (TOML has no null).
    """

    spacing: tuple[Spacing, Spacing, Spacing]
    orientation: Orientation = "LPS"
    normalization: Normalization
    patch: Patch


class PlanSettings(Strict):
    """What decides the values that a recipe leaves out.

    Args:
        dim: 2 or 3; 0 chooses by the data.
        budget: ``laptop``, ``gpu``, or the memory of a GPU (``24GB``).
    """

    dim: Literal[0, 2, 3] = 0
    budget: Annotated[str, Field(pattern=BUDGET_PATTERN)] = "laptop"


class DataSettings(Strict):
    """What a case that cannot be read does: ``stop`` the run before it begins, or be left out and listed (``skip``)."""

    bad_cases: Literal["stop", "skip"] = "stop"


class SplitSettings(Strict):
    """Patient-wise split: shares of validation and test, the rest trains. See ``split_cases``.

    Args:
        folds: Divides all but the test cases into so many parts; 0 draws one validation part.
        fold: The part that validates, from 0.
    """

    seed: int = 0
    validation: Share = 0.1
    test: Share = 0.2
    folds: Annotated[int, Field(ge=0, le=100)] = 0
    fold: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fold_of_folds(self) -> SplitSettings:
        if self.folds == 1:
            raise ValueError("one fold would validate on all it trains on: give at least 2, or 0 for no folds")
        if self.fold >= max(1, self.folds):
            raise ValueError(f"fold counts from 0 and must be below folds, which is {self.folds}")
        return self


class AugmentationSettings(Strict):
    """Random changes of a training patch, each drawn per sample; the ranges follow nnU-Net's defaults.

    Args:
        spatial: Probability of a rotation and scaling.
        rotation: Largest angle about each axis, degrees; axes with thick slices are neither rotated nor scaled.
        scale: Range of the zoom factor.
        elastic: Largest random displacement in voxels of the finest axis, on a coarse grid (0 switches it off).
        mirror: Axes along which the patch is flipped half of the time.
        swap: Names of labels that change places when left and right are mirrored, like the two kidneys.
        noise, blur, brightness, contrast, low_resolution, gamma, gamma_inverted: Probability of each change of
            intensity, with parameters of its own for each channel; blur and low resolution take half of the channels.
    """

    spatial: Share = 0.5
    rotation: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale: tuple[Positive, Positive] = (0.8, 1.25)
    elastic: Annotated[float, Field(ge=0)] = 0.0
    mirror: tuple[Literal["x", "y", "z"], ...] = ()
    swap: tuple[tuple[str, str], ...] = ()
    noise: Share = 0.1
    blur: Share = 0.2
    brightness: Share = 0.15
    contrast: Share = 0.15
    low_resolution: Share = 0.25
    gamma: Share = 0.3
    gamma_inverted: Share = 0.1

    @model_validator(mode="after")
    def _scale_in_order(self) -> AugmentationSettings:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale runs from the smaller zoom to the larger one, like [0.8, 1.25]")
        return self

    @model_validator(mode="after")
    def _each_label_once(self) -> AugmentationSettings:
        names = [name for pair in self.swap for name in pair]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"swap names '{twice[0]}' twice; a label changes places with one other label")
        return self

    def pairs(self, labels: Sequence[Label]) -> tuple[tuple[int, int], ...]:
        """The values of the labels in ``swap``.

        Raises:
            SettingsError: names a label that the data set does not have.
        """
        values = {label.name: label.value for label in labels}
        unknown = [name for pair in self.swap for name in pair if name not in values]
        if unknown:
            raise SettingsError(
                f"[augmentation] swap names '{unknown[0]}', which the data set does not have (it has {list(values)})."
            )
        return tuple((values[first], values[second]) for first, second in self.swap)


class LossSettings(Strict):
    """The segmentation loss: ``overlap`` + ``voxel``, each with its weight (0 leaves it out).

    Args:
        overlap: ``dice``, or ``tversky``, which weighs false positives by ``alpha`` and false negatives by ``beta``
            (Salehi et al. 2017; 0.5 and 0.5 are Dice, a larger ``beta`` finds more of a small organ).
        voxel: ``ce`` is cross-entropy; ``focal`` weighs a voxel by (1 - p)^gamma (Lin et al. 2017).
    """

    overlap: Literal["dice", "tversky"] = "dice"
    overlap_weight: LossWeight = 1.0
    alpha: Annotated[float, Field(gt=0, le=10)] = 0.3
    beta: Annotated[float, Field(gt=0, le=10)] = 0.7
    voxel: Literal["ce", "focal"] = "ce"
    voxel_weight: LossWeight = 1.0
    gamma: Annotated[float, Field(ge=0, le=10)] = 2.0


class Optimization(Strict):
    """How long and how a network is trained.

    Args:
        steps: Optimiser steps.
        batch: Patches in a step, for each process of a distributed run.
        accumulate: Batches whose gradients are averaged before each step.
        learning_rate: Peak of the schedule.
        schedule: After the warm-up ``cosine`` falls to zero, ``poly`` as (1 - t)^0.9 (nnU-Net), ``constant`` stays.
        warm_up: Share of the steps over which the rate rises linearly to its peak.
        clip: Largest norm of the gradient.
        ema: Decay of the moving average of weights that is validated and shipped; 0 switches it off.
        precision: ``auto`` is bfloat16 where the hardware computes in it, float16 on other GPUs, float32 elsewhere.
        deep_supervision: Coarser decoder stages answer for the labels too, during training.
        foreground: Share of patches centred on a voxel of a random organ.
        unlabelled: Share of distillation steps that take unlabelled cases, where there are any.
        validate_every: Steps between validations; 0 validates at the end only.
        patience: Validations without a better Dice after which the run ends; 0 never ends it early.
        not_finite: A loss or gradient that is no number stops the run, or skips that step and is listed.
        workers: Processes that read the data; 0 is a thread. Changes no result.
    """

    steps: Count
    batch: Count = 4
    accumulate: Count = 1
    learning_rate: Positive = 2e-3
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warm_up: Share = 0.02
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip: Positive = 12.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    precision: PrecisionName = "auto"
    deep_supervision: bool = False
    foreground: Share = 0.5
    unlabelled: Share = 0.0
    validate_every: Annotated[int, Field(ge=0)] = 200
    patience: Annotated[int, Field(ge=0)] = 0
    not_finite: Literal["stop", "skip"] = "stop"
    workers: Annotated[int, Field(ge=0, le=64)] = 0


class Role(Strict):
    """A network and its training; the data decide its ``dim``, ``in_channels`` and ``classes``."""

    network: str
    arguments: dict[str, Any] = {}
    optimization: Optimization


class LabelStyle(Strict):
    """Colour and DICOM codes for a label of the data set."""

    color: tuple[Byte, Byte, Byte] | None = None
    terminology: Terminology | None = None


class PackageSettings(Strict):
    """What the model package says about itself; licence and citation default to the data set's."""

    title: Title
    description: Text = ""
    licence: Text = ""
    citation: Text = ""
    intended_use: Text = "Research only. Not a medical device."
    largest_component: tuple[str, ...] = ()
    fill_holes: tuple[str, ...] = ()


class Recipe(Strict):
    """One ready run: data, teacher, student and distillation.

    Args:
        deterministic: Use only algorithms that repeat bit for bit on the same GPU model (a processor's always do,
            for the same number of threads); slower, and refused by torch where it has none.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,47}$")]
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    plan: PlanSettings = PlanSettings()
    data: DataSettings = DataSettings()
    input: InputSettings
    split: SplitSettings = SplitSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    loss: LossSettings = LossSettings()
    deterministic: bool = False
    teacher: Role
    student: Role
    distillation: DistillationSettings
    labels: dict[str, LabelStyle] = {}
    package: PackageSettings

    @model_validator(mode="after")
    def _patch_fits_spacing(self) -> Recipe:
        if len(self.input.patch) == 2 and self.input.spacing[0] != 0:
            raise ValueError("a 2D patch keeps the slices as they are: set the first spacing (z) to 0")
        return self

    def role(self, name: Literal["teacher", "student"]) -> Role:
        return self.teacher if name == "teacher" else self.student

    def style(self, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        """The data set's labels with this recipe's colours and codes.

        Raises:
            SettingsError: a style for a label that the data set does not have.
        """
        unknown = set(self.labels) - {label.name for label in labels}
        if unknown:
            names = [label.name for label in labels]
            raise SettingsError(f"[labels] styles '{min(unknown)}', which the data set does not have (it has {names}).")
        styles = {name: style.model_dump(exclude_none=True) for name, style in self.labels.items()}
        return tuple(Label.model_validate(label.model_dump() | styles.get(label.name, {})) for label in labels)

    def digest(self, name: Literal["teacher", "student"], distilling: bool) -> str:
        """SHA-256 of the settings that decide the weights of this role; a title may change at any time."""
        decisive = {"seed", "input", "split", "augmentation", "loss", "deterministic", name}
        settings = self.model_dump(mode="json", include=decisive | ({"distillation"} if distilling else set()))
        del settings[name]["optimization"]["workers"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def available_recipes() -> dict[str, Path]:
    """The recipes that come with the project, by name."""
    return {path.stem: path for folder in RECIPES for path in sorted(folder.glob("*.toml"))}


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a complete recipe by path or by the name of a bundled one, and apply ``key.sub=value`` overrides.

    Raises:
        SettingsError: not found, not TOML, an unknown key, a value of the wrong kind, or one that is missing.
    """
    source, data = read_recipe(name_or_path, overrides)
    return validate(Recipe, data, source=source, error=SettingsError)


def read_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> tuple[str, dict[str, Any]]:
    """Where a recipe lies and what it says, overrides applied, not validated yet.

    Raises:
        SettingsError: not found, or not TOML.
    """
    path = Path(name_or_path)
    if not path.is_file():
        ready = available_recipes()
        if name_or_path not in ready:
            raise SettingsError(f"There is no recipe '{name_or_path}'; give a .toml file or one of {sorted(ready)}.")
        path = ready[name_or_path]
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise SettingsError(f"{path}: this is not readable TOML ({fault}).") from fault
    for override in overrides:
        _apply(data, override)
    return str(path), data


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key.strip()):
        raise SettingsError(f"--set '{override}': write it as key=value, for example student.optimization.steps=500.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    *sections, last = key.strip().split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise SettingsError(f"--set '{override}': '{section}' is a value, not a section.")
    data[last] = value
