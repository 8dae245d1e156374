"""``mskd export``: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mskd.cli.info import Model


def export(
    model: Model,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="onnx, openvino, torchscript or monai-bundle.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file (.onnx, .pt), or the folder for openvino and monai-bundle.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that exists.")] = False,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO, libtorch or MONAI, with its labels, spacing and licence.

    It takes images of any size, and is left on the disk only after it gave PyTorch's logits for several.

    Example: `mskd export hippocampus-mr --to onnx --output hippocampus.onnx`
    """
    from mskd.export import export_package
    from mskd.package import open_package

    report = export_package(open_package(model), to, output, overwrite=overwrite)
    typer.echo(
        f"{output} is written: over {len(report.sizes)} sizes its logits differ from PyTorch's by "
        f"{report.difference:.1g} of their size, and {100 * report.voxels_equal:.4g} % of the labels are equal."
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)
