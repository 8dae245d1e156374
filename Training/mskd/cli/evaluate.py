"""``mskd evaluate``: how good a model is on labelled cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mskd.cli.console import Device, interruptible, progress_listener
from mskd.cli.train import DatasetArgument
from mskd.errors import SettingsError
from mskd.files import require_new_file, write_text

PARTS = ("train", "validation", "test")


def register(app: typer.Typer) -> None:
    example = (
        "mskd evaluate Task04_Hippocampus --model runs/student/model --split runs/student/split.json:test "
        "--output test.json"
    )
    app.command("evaluate", epilog=f"Example: `{example}`")(evaluate)


def evaluate(
    dataset: DatasetArgument,
    model: Annotated[str, typer.Option(metavar="MODEL", help="A model package, or the name of a bundled model.")],
    output: Annotated[
        Path, typer.Option(metavar="TABLE.json", help="The table; its Markdown lands beside it, as .md.")
    ],
    split: Annotated[
        str | None,
        typer.Option(metavar="FILE[:PART]", help="A run's split.json and train, validation or test. Default: all."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Tolerance of the NSD in mm.")] = 1.0,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing table.")] = False,
) -> None:
    """Measure Dice, HD95, NSD and volume error of a model, per case and label, with mean and spread."""
    from mskd.data import Split, open_dataset
    from mskd.evaluation.run import evaluate as run
    from mskd.evaluation.table import markdown_rows
    from mskd.inference import Engine
    from mskd.package import open_package

    beside = _check(output, tolerance, overwrite)
    found = open_dataset(dataset)
    cases, part = found.labelled, "all labelled cases"
    if split is not None:
        file, part = split_part(split)
        cases = found.select(getattr(Split.load(file), part))
    with interruptible() as cancelled, progress_listener() as listener:
        engine = Engine(open_package(model), device.value)
        table = run(engine, found, cases, part=part, tolerance=tolerance, on_event=listener, cancelled=cancelled)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(beside, table.as_markdown())
    write_text(output, json.dumps(table.as_json(), indent=1, allow_nan=False) + "\n")
    typer.echo("\n".join(markdown_rows({"": table}, with_model=False)))
    typer.echo(f"Written: {output} and {beside}.")


def split_part(text: str) -> tuple[Path, str]:
    """``FILE:PART`` -> both; without a part it is the test part.

    Raises:
        SettingsError: a part that no split has.
    """
    file, colon, part = text.rpartition(":")
    if not colon or "/" in part or "\\" in part or part.endswith(".json"):
        return Path(text), "test"
    if part not in PARTS:
        raise SettingsError(f"--split {text}: '{part}' is not a part of a split; write FILE:{' or FILE:'.join(PARTS)}.")
    return Path(file), part


def _check(output: Path, tolerance: float, overwrite: bool) -> Path:
    """Refuse what could not be written at the end, before anything is computed; returns the Markdown's path."""
    if output.suffix != ".json":
        raise SettingsError(f"--output {output}: the table is JSON; give a file name that ends in .json.")
    if not tolerance > 0:
        raise SettingsError(f"--tolerance {tolerance:g}: the NSD needs a tolerance above 0 mm.")
    beside = output.with_suffix(".md")
    for path in (output, beside):
        require_new_file(path, "--output", overwrite=overwrite)
    return beside
