"""``mskd plan``: a recipe for a data set, with the reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mskd.cli.console import interruptible, progress_listener
from mskd.cli.train import DatasetArgument, JobsOption, OverwriteOption, SetOption, SplitOption


def register(app: typer.Typer) -> None:
    app.command("plan", epilog="Example: `mskd plan Task04_Hippocampus --output hippocampus.toml`")(plan)


def plan(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(help="The recipe to write (.toml).")],
    recipe: Annotated[str, typer.Option(help="What is fixed already: a recipe's name, or a .toml file.")] = "generic",
    dim: Annotated[int | None, typer.Option(min=2, max=3, help="2 or 3; by default the data decide.")] = None,
    budget: Annotated[str | None, typer.Option(help="laptop, gpu, or the memory of a GPU, like 24GB.")] = None,
    settings: SetOption = None,
    split: SplitOption = None,
    jobs: JobsOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a recipe for a data set: spacing, patch, networks and training, each with its reason.

    Only the training cases of the split are read.
    """
    from mskd.data import open_dataset
    from mskd.files import require_new_file, write_text
    from mskd.training.draft import load_draft
    from mskd.training.planning import complete

    require_new_file(output, "--output", overwrite=overwrite)
    wishes = {"plan.dim": dim, "plan.budget": budget}
    asked = tuple(f"{key}={value}" for key, value in wishes.items() if value is not None)
    draft = load_draft(recipe, (*(settings or ()), *asked))
    with interruptible() as cancelled, progress_listener() as listener:
        chosen, found = complete(
            draft, open_dataset(dataset), split_file=split, jobs=jobs, on_event=listener, cancelled=cancelled
        )
    if found is None:
        typer.echo(f"The recipe {recipe} leaves nothing to plan; nothing was written.")
        return
    write_text(output, found.as_toml(chosen))
    typer.echo(f"{output} is written: {len(found.values)} values planned from {len(found.fingerprint.cases)} cases.")
    typer.echo(f"  mskd train {dataset} --recipe {output} --output runs/{chosen.name}-teacher")
