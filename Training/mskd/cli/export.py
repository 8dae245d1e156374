"""``mskd export``: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mskd.cli.info import Model
from mskd.errors import InputError


def export(
    model: Model,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="onnx, openvino, torchscript or monai-bundle.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file (.onnx, .pt), or the folder for openvino and monai-bundle.")
    ],
    int8: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write 8-bit integers, calibrated on a folder of images; for openvino."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that exists.")] = False,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO, libtorch or MONAI, with its labels, spacing and licence.

    It takes images of any size, and is left on the disk only after it gave PyTorch's logits for several; with --int8,
    PyTorch's labels for the images, to a Dice of 0.95 each.

    Example: `mskd export hippocampus-mr --to onnx --output hippocampus.onnx`
    """
    from mskd.batch import find_cases
    from mskd.export import export_package
    from mskd.package import open_package

    package, cases = open_package(model), None
    if int8 is not None:
        if not int8.is_dir():
            raise InputError(f"--int8 {int8}: is not a folder; give one of images like those of training.")
        cases = find_cases(int8, len(package.manifest.channels)) or {int8.name: (int8,)}
    report = export_package(package, to, output, calibration=cases, overwrite=overwrite)
    typer.echo(
        f"{output} is written: over {len(report.sizes)} images its logits differ from PyTorch's by "
        f"{report.difference:.1g} of their size, and {100 * report.voxels_equal:.4g} % of the labels are equal."
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)
