"""Exporting a package: written beside its place, compared with PyTorch, and only then put there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mskd.errors import InputError, PackageError, SettingsError
from mskd.export.base import FORMATS, Format, Forward
from mskd.export.int8 import QuantizedOpenVINO, calibration_windows
from mskd.files import replacing, require_new_file, require_writable_folder
from mskd.networks import SegmentationNetwork
from mskd.package import Package
from mskd.package.manifest import PROBE
from mskd.package.probe import TOLERANCE
from mskd.package.weights import unpack_tensors

MARK = ".mskd-export"
"""A file in each folder that was exported, by which a later export knows that it may replace the folder."""


QUANTIZED = "openvino"
"""The format that can hold integers of 8 bits."""
LEAST_DICE = 0.95
"""Between what they find of a label and what PyTorch finds, for every label."""


@dataclass(frozen=True)
class ExportReport:
    """What the comparison with PyTorch showed.

    Args:
        sizes: ``[N, C, *spatial]`` of the images that were run.
        difference: Largest difference of a logit, divided by the largest logit or 1.
        voxels_equal: Share of voxels with the same label.
        worst_label: Value of the label on which both agree least, of those that PyTorch finds.
        worst_dice: Dice between both on that.
    """

    sizes: tuple[tuple[int, ...], ...]
    difference: float
    voxels_equal: float
    worst_label: int
    worst_dice: float


def export_package(
    package: Package,
    name: str,
    output: Path,
    *,
    calibration: Mapping[str, tuple[Path, ...]] | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write ``package`` in the format ``name`` to ``output``, whole and right, or not at all.

    Args:
        calibration: Files of images like those of training, by name: write integers of 8 bits, their ranges found on
            them. What was written then has to give PyTorch's labels there, not its logits. For ``openvino``.

    Raises:
        SettingsError: unknown format, something missing for it, or a place that cannot be written.
        PackageError: what was written computes something else than PyTorch. InputError: the disk is full, or images
            that cannot be used.
    """
    kind = FORMATS[name]
    if calibration is not None and name != QUANTIZED:
        raise SettingsError(f"--int8 is for the format {QUANTIZED}, and this is {name}; leave it out, or change --to.")
    missing = (kind if calibration is None else QuantizedOpenVINO).available()
    if missing is not None:
        raise SettingsError(f"The format '{name}' cannot be written here: {missing}")
    _check_place(kind, name, output, overwrite)
    windows = None if calibration is None else calibration_windows(package, calibration)
    with _new_place(kind, output) as place:
        writer = kind() if windows is None else QuantizedOpenVINO(windows)
        writer.write(package, place)
        report = compare(writer.load(place), package, windows)
        if windows is not None and report.worst_dice < LEAST_DICE:
            names = {label.value: label.name for label in package.manifest.labels}
            worst = names.get(report.worst_label, "background")
            raise PackageError(
                f"{output}: with 8 bits '{worst}' overlaps with PyTorch's by a Dice of {report.worst_dice:.3f} "
                f"({LEAST_DICE:g} is asked), so nothing was written; give other images, or leave out --int8."
            )
        if windows is None and report.difference > TOLERANCE:
            raise PackageError(
                f"{output}: as {name} the network's logits differ by {report.difference:.2g} of their size "
                f"({TOLERANCE:g} is allowed), so nothing was written; use another format or other versions of torch "
                "and of the packages for this format."
            )
    return report


def compare(forward: Forward, package: Package, images: Sequence[Tensor] | None = None) -> ExportReport:
    """Run images, by default the probe, a batch and awkward sizes, through both, and find the largest difference."""
    network = package.load_network()
    difference, pairs = 0.0, torch.zeros(package.manifest.classes**2, dtype=torch.int64)
    if images is None:
        probe = unpack_tensors(package.files[PROBE], source=f"{package.path} ({PROBE})")["image"].float()
        images = [probe, *awkward_images(network, len(package.manifest.channels))]
    for image in images:
        with torch.inference_mode():
            expected = network(image)
        logits = forward(image)
        if logits.shape != expected.shape:
            raise PackageError(f"{package.path}: the export gives {tuple(logits.shape)} for {tuple(image.shape)}.")
        # Not "<": NaN compares as false.
        off = float((logits - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        difference = max(difference, off if off == off else float("inf"))
        both = package.manifest.classes * expected.argmax(1) + logits.argmax(1)
        pairs += torch.bincount(both.flatten(), minlength=len(pairs))
    table = pairs.view(package.manifest.classes, -1).double()
    theirs, common = table.sum(dim=1), table.diagonal()
    dice = torch.where(theirs > 0, 2 * common / (theirs + table.sum(dim=0)), torch.inf)
    worst = int(dice.argmin())
    sizes = tuple(tuple(image.shape) for image in images)
    return ExportReport(sizes, difference, float(common.sum() / table.sum()), worst, float(dice[worst]))


def awkward_images(network: SegmentationNetwork, channels: int) -> Iterator[Tensor]:
    """Noise in sizes that need padding along each axis, along none, and a single voxel."""
    generator = torch.Generator().manual_seed(0)
    steps = network.divisor
    sizes = (
        (2, *(2 * step + 1 + axis for axis, step in enumerate(steps))),
        (1, *(3 * step for step in steps)),
        (1, *(step + 3 * axis for axis, step in enumerate(steps))),
        (1, *(1 for _ in steps)),
    )
    for batch, *sides in sizes:
        yield torch.randn(batch, channels, *sides, generator=generator)


def _check_place(kind: type[Format], name: str, output: Path, overwrite: bool) -> None:
    """Refuse a place before anything is computed for it."""
    if kind.suffix:
        if output.suffix != kind.suffix:
            raise SettingsError(f"--output {output}: the name of a file for {name} ends in {kind.suffix}.")
        require_new_file(output, "--output", overwrite=overwrite)
        return
    require_writable_folder(output.absolute().parent, "--output")
    if not os.path.lexists(output) or (overwrite and (output / MARK).is_file()):
        return
    hint = "it was not made by an export, so it is not replaced" if overwrite else "it was kept; give --overwrite"
    raise SettingsError(f"--output {output} exists already and {hint}, or choose another name.")


@contextmanager
def _new_place(kind: type[Format], output: Path) -> Iterator[Path]:
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) if kind.suffix else _replacing_folder(output) as place:
        yield place


@contextmanager
def _replacing_folder(output: Path) -> Iterator[Path]:
    """Hand out an empty sibling of ``output``; when the block ends well, it becomes ``output``."""
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(6)}")
    old = temporary.with_name(f"{temporary.name}.old")
    try:
        temporary.mkdir()
        yield temporary
        (temporary / MARK).touch()
        if output.exists():
            output.rename(old)
        temporary.rename(output)
    except OSError as fault:
        if old.exists() and not output.exists():
            with suppress(OSError):
                old.rename(output)
        raise InputError(
            f"{output} cannot be written ({fault.strerror or fault}); what was there is untouched. Make room, or "
            "choose another place."
        ) from fault
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
