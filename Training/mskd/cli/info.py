"""``mskd info``, ``mskd verify`` and ``mskd models``: what a model is, whether it is sound, and which are there."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Package folder, .mskd.zip, or a bundled model's name.")]


def info(
    model: Model, as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False
) -> None:
    """Show the card of a model: intended use, labels, measured quality, origin, licence.

    Example: `mskd info hippocampus-mr`
    """
    from mskd.package import open_package, render_card
    from mskd.package.manifest import manifest_text

    package = open_package(model)
    if as_json:
        typer.echo(manifest_text(package.manifest).decode(), nl=False)
        return
    card = f"{render_card(package.manifest)}\nFingerprint: {package.fingerprint}\n"
    console = Console()
    if console.is_terminal:
        console.print(Markdown(card))
    else:
        typer.echo(card, nl=False)


def verify(model: Model) -> None:
    """Check every hash of a model and replay its probe: does it compute here what it did where it was made?

    Example: `mskd verify hippocampus-mr`
    """
    from mskd.errors import PackageError
    from mskd.package import open_package, verify_package

    package = open_package(model)
    report = verify_package(package)
    if not report.passed:
        raise PackageError(
            f"{package.path}: the probe's logits differ by {report.difference:.2g} of their size ({report.tolerance:g} "
            "is allowed); the package or this installation of torch is damaged, so install both again."
        )
    typer.echo(
        f"{package.manifest.name} {package.manifest.version} is sound: {report.files} files have the right SHA-256, "
        f"and the probe's logits differ by {report.difference:.1g} of their size ({report.tolerance:g} is allowed)."
    )


def models() -> None:
    """List the bundled models.

    Example: `mskd models`
    """
    from mskd.errors import PackageError
    from mskd.package import bundled_models, open_package

    found = bundled_models()
    if not found:
        typer.echo("There are no bundled models; set MSKD_MODELS to a folder of packages to list those.")
        return
    table = Table("Name", "Title", "Input", "Labels", "Licence")
    for name, path in found.items():
        try:
            manifest = open_package(path).manifest
        except PackageError as fault:
            table.add_row(name, escape(f"refused: {fault}"), "", "", "")
            continue
        channels = ", ".join(f"{channel.name} ({channel.modality})" for channel in manifest.channels)
        labels = ", ".join(label.name for label in manifest.labels)
        table.add_row(name, *map(escape, (manifest.title, channels, labels, manifest.licence)))
    Console().print(table)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(info)
    app.command()(verify)
    app.command()(models)
