"""``mskd report``: what a run learnt, as one HTML page; or several runs side by side."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mskd.cli.console import Device, interruptible, progress_listener
from mskd.errors import InputError, SettingsError
from mskd.files import require_new_file, write_text


class Part(str, Enum):
    """The cases of the split to look at."""

    validation = "validation"
    test = "test"


def register(app: typer.Typer) -> None:
    example = "mskd report runs/student` or `mskd report runs/alone runs/student --output compared.html"
    app.command("report", epilog=f"Example: `{example}`")(report)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, finished or not.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="The page. Default: report.html in the run's folder, written anew."),
    ] = None,
    split: Annotated[Part, typer.Option(help="Which cases to segment and show.")] = Part.validation,
    dataset: Annotated[
        Path | None, typer.Option(help="Where the data set lies, if it is no longer where the run read it.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Tolerance of the NSD in mm.")] = 1.0,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing page.")] = False,
) -> None:
    """Show curves, examples, confusion and a table of every case in one HTML page that needs no network.

    Several runs are compared with the first one, pair by pair of cases.
    """
    from mskd.report.comparison_page import comparison_page
    from mskd.report.examine import Looking, examine
    from mskd.report.record import read_record
    from mskd.report.run_page import run_page

    page = _check(runs, output, tolerance, overwrite)
    if dataset is not None and not dataset.is_dir():
        raise InputError(f"--dataset {dataset}: there is no such folder; give the folder that holds the data set.")
    records = [read_record(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    found = []
    with interruptible() as cancelled:
        for record in records:
            with progress_listener(f"{record.name}: " if len(records) > 1 else "") as listener:
                looking = Looking(split.value, dataset, device.value, tolerance, listener, cancelled)
                found.append((record, examine(record, looking)))
    write_text(page, run_page(*found[0]) if len(found) == 1 else comparison_page(found))
    for record, looked in found:
        for line in (*record.missing, *([looked] if isinstance(looked, str) and looked else [])):
            typer.echo(f"{record.name}: {line}", err=True)
    typer.echo(f"Written: {page}. Open it in a browser.")


def _check(runs: list[Path], output: Path | None, tolerance: float, overwrite: bool) -> Path:
    """Refuse what could not be written at the end, before anything is computed; returns the page's path."""
    if not tolerance > 0:
        raise SettingsError(f"--tolerance {tolerance:g}: the NSD needs a tolerance above 0 mm.")
    if output is None and len(runs) > 1:
        raise SettingsError("A page of several runs belongs to none of their folders; say where with --output.")
    page = output or runs[0] / "report.html"
    if page.suffix != ".html":
        raise SettingsError(f"--output {page}: the report is a web page; give a file name that ends in .html.")
    if output is not None or runs[0].is_dir():
        require_new_file(page, "--output", overwrite=overwrite or output is None)
    return page


def _names(runs: list[Path]) -> list[str]:
    """What the page calls the runs: their folders' names, or their paths where two have the same."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]
