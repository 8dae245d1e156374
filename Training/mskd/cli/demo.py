"""``mskd demo``: the whole road once, in minutes, without data of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mskd.cli.console import Device, interruptible, progress_listener


def register(app: typer.Typer) -> None:
    app.command("demo", epilog="Example: `mskd demo --output demo`")(demo)


def demo(
    output: Annotated[Path, typer.Option(help="The demo's folder.")] = Path("demo"),
    recipe: Annotated[str, typer.Option(help="A recipe's name, or the path of a .toml file.")] = "phantom",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe; repeatable."),
    ] = None,
    cases: Annotated[int, typer.Option(help="Phantom subjects, divided into training, validation and test.")] = 30,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    fresh: Annotated[bool, typer.Option(help="Train again, even where the same run is finished.")] = False,
    template: Annotated[
        bool, typer.Option(help="Fetch the MNI152 brain template with pip and segment both hippocampi.")
    ] = True,
) -> None:
    """Make a phantom, train a teacher, distil a student, measure, package, segment, and report.

    A repeated demo keeps finished runs with the same settings, and overwrites only its own files.
    """
    from mskd.demo.report import next_steps, write_report
    from mskd.demo.run import run_demo
    from mskd.demo.settings import DemoSettings
    from mskd.evaluation.table import markdown_rows

    with interruptible() as cancelled, progress_listener() as listener:
        done = run_demo(
            DemoSettings(
                output,
                cases=cases,
                recipe=recipe,
                overrides=tuple(settings or ()),
                device=device.value,
                fresh=fresh,
                template=template,
                on_event=listener,
                cancelled=cancelled,
            )
        )
        report = write_report(done)
    reused = [model.name for model in done.models if model.reused]
    if reused:
        typer.echo(f"Taken from the earlier run with the same settings (--fresh trains again): {', '.join(reused)}.")
    typer.echo("\n".join(markdown_rows(done.tables)))
    if isinstance(done.brain, str):
        typer.echo(done.brain)
    typer.echo(f"\nOpen {report}: it shows all of this. Then:")
    for says, command in next_steps(done.models[-1].package.path, output):
        typer.echo(f"  {command}    # {says}")
