"""``mskd train``: a network on its labels alone."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mskd.cli.console import Device, interruptible, progress_listener

DatasetArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder of the data set: Medical Segmentation Decathlon (msd), nnU-Net raw (nnunet), images/ and labels/ "
        "(folder), Synapse multi-organ CT (synapse), KiTS (kits19, kits23); see docs/data.md."
    ),
]
RecipeOption = Annotated[str, typer.Option(help="A recipe's name, or the path of a .toml file.")]
OutputOption = Annotated[Path, typer.Option(help="Folder of the run: settings, metrics, checkpoints, model/.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe; repeatable.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run in --output from its last checkpoint.")]
SplitOption = Annotated[Path | None, typer.Option(help="A split.json to take instead of drawing a split.")]
CacheOption = Annotated[
    Path | None, typer.Option(help="Folder of prepared cases, which runs may share; by default cache/ in --output.")
]
JobsOption = Annotated[int, typer.Option(min=0, help="Processes that read and prepare cases; 0 chooses.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the run in --output.")]


class Role(str, Enum):
    """Which of the recipe's two networks."""

    teacher = "teacher"
    student = "student"


def register(app: typer.Typer) -> None:
    app.command("train", epilog="Example: `mskd train Task04_Hippocampus --recipe hippocampus --output runs/teacher`")(
        train
    )


def train(
    dataset: DatasetArgument,
    recipe: RecipeOption,
    output: OutputOption,
    role: Annotated[Role, typer.Option(help="Which of the recipe's networks to train.")] = Role.teacher,
    device: DeviceOption = Device.auto,
    settings: SetOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    split: SplitOption = None,
    cache: CacheOption = None,
    jobs: JobsOption = 0,
) -> None:
    """Train a network alone: a teacher, or a student without distillation."""
    from mskd.training.draft import load_draft
    from mskd.training.run import RunOptions
    from mskd.training.run import train as run

    chosen = load_draft(recipe, tuple(settings or ()))
    with interruptible() as cancelled, progress_listener() as listener:
        options = RunOptions(output, device.value, resume, overwrite, listener, cancelled, cache, jobs, split)
        package = run(dataset, chosen, role.value, options)
    conclude(package.path, dataset, output)


def conclude(model: Path, dataset: Path, run: Path) -> None:
    """Say where the model lies and what to do with it; of several ranks one does."""
    if os.environ.get("RANK", "0") != "0":
        return
    typer.echo(f"The model package is {model}. Measure it on the test cases, which training never read:")
    typer.echo(
        f"  mskd evaluate {dataset} --model {model} --split {run / 'split.json'}:test --output {run / 'test.json'}"
    )
