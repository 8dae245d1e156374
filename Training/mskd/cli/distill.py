"""``mskd distill``: a light student under a teacher."""

from __future__ import annotations

from typing import Annotated

import typer

from mskd.cli.console import Device, interruptible, progress_listener
from mskd.cli.train import (
    CacheOption,
    DatasetArgument,
    DeviceOption,
    JobsOption,
    OutputOption,
    OverwriteOption,
    RecipeOption,
    ResumeOption,
    SetOption,
    SplitOption,
    conclude,
)


def register(app: typer.Typer) -> None:
    example = "mskd distill Task04_Hippocampus --teacher runs/teacher/model --recipe hippocampus --output runs/student"
    app.command("distill", epilog=f"Example: `{example}`")(distill)


def distill(
    dataset: DatasetArgument,
    teacher: Annotated[str, typer.Option(metavar="MODEL", help="The teacher: a model package or a bundled model.")],
    recipe: RecipeOption,
    output: OutputOption,
    device: DeviceOption = Device.auto,
    settings: SetOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    split: SplitOption = None,
    cache: CacheOption = None,
    jobs: JobsOption = 0,
) -> None:
    """Train the recipe's student under a teacher (MSKD: feature filtering and region graph distillation)."""
    from mskd.training.draft import load_draft
    from mskd.training.run import RunOptions, distil

    chosen = load_draft(recipe, tuple(settings or ()))
    with interruptible() as cancelled, progress_listener() as listener:
        options = RunOptions(output, device.value, resume, overwrite, listener, cancelled, cache, jobs, split)
        package = distil(dataset, teacher, chosen, options)
    conclude(package.path, dataset, output)
