"""``mskd check``: what is wrong with a data set, before a week of training finds out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mskd.cli.console import interruptible, progress_listener
from mskd.errors import InputError
from mskd.files import require_new_file, require_writable_folder, write_text

if TYPE_CHECKING:
    from mskd.data.check import Report

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
# Findings of one rule on the terminal; check.json has them all.
MOST_OF_A_RULE = 8
MOST_IDS = 3


def register(app: typer.Typer) -> None:
    example = "mskd check Task04_Hippocampus --output hippocampus-check"
    app.command("check", epilog=f"Example: `{example}`")(check)


def check(
    dataset: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write check.json and contact-sheet.png here."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; each holds one case in memory.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the check in --output.")] = False,
) -> None:
    """Find faulty files, labels, duplicates and outliers in a data set. Exit code 3 if there is an error."""
    from mskd.data import open_dataset
    from mskd.data.check import check_dataset

    if output is not None:
        require_writable_folder(output, "--output")
        if output.is_dir():
            require_new_file(output / "check.json", "--output", overwrite=overwrite)
    found = open_dataset(dataset)
    with interruptible() as cancelled, progress_listener() as listener:
        report = check_dataset(found, jobs=jobs, tiles=output is not None, on_event=listener, cancelled=cancelled)
    _show(report)
    if output is not None:
        _write(report, output)
    if report.count("error"):
        raise typer.Exit(InputError.exit_code)


def _write(report: Report, output: Path) -> None:
    from mskd.data.check.sheet import write_sheets

    output.mkdir(parents=True, exist_ok=True)
    pages = write_sheets(output, report)
    write_text(output / "check.json", json.dumps(report.as_json(), indent=1, allow_nan=False) + "\n")
    more = f" to {pages[-1].name}" if len(pages) > 1 else ""
    typer.echo(f"Written: {output / 'check.json'} and {pages[0]}{more}.")


def _show(report: Report) -> None:
    from mskd.data.check import SEVERITIES

    console = Console()
    dataset = report.dataset
    console.print(
        Text(
            f"{dataset.name}: {len(dataset.labelled)} labelled and {len(dataset.unlabelled)} unlabelled cases, "
            f"{', '.join(f'{channel.name} ({channel.modality})' for channel in dataset.channels)}",
            style="bold",
        )
    )
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, words in report.grid().items():
        grid.add_row(name, words)
    console.print(grid)
    console.print(_classes(report))
    if report.findings:
        console.print(_findings(report))
    counts = [f"{count} {name}{'s' if count != 1 else ''}" for name in SEVERITIES for count in [report.count(name)]]
    console.print(Text(f"{', '.join(counts)}."))


def _classes(report: Report) -> Table:
    table = Table("Class", "Value", "Cases", "Median (mL)", "5th to 95th percentile (mL)")
    for column in table.columns[1:]:
        column.justify = "right"
    labelled = len(report.dataset.labelled)
    for row in report.class_volumes():
        figures = (f"{row.median_ml:.4g}", f"{row.low_ml:.4g} to {row.high_ml:.4g}") if row.cases else ("-", "-")
        table.add_row(Text(row.name), str(row.value), f"{row.cases} of {labelled}", *figures)
    return table


def _findings(report: Report) -> Table:
    table = Table("", "Rule", "Cases", "Finding", show_lines=True)
    shown: dict[tuple[str, str], int] = {}
    for finding in report.findings:
        key = (finding.severity, finding.rule)
        shown[key] = shown.get(key, 0) + 1
        if shown[key] <= MOST_OF_A_RULE:
            ids = "\n".join(finding.cases[:MOST_IDS])
            more = f"\n+{len(finding.cases) - MOST_IDS}" if len(finding.cases) > MOST_IDS else ""
            style = STYLES[finding.severity]
            table.add_row(Text(finding.severity, style=style), Text(finding.rule), Text(ids + more), Text(finding.text))
    for (severity, rule), count in shown.items():
        if count > MOST_OF_A_RULE:
            rest = f"{count - MOST_OF_A_RULE} more of this rule; --output writes all of them to check.json."
            table.add_row(Text(severity, style=STYLES[severity]), Text(rule), "", rest)
    return table
