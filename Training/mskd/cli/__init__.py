"""The ``mskd`` command: one file a command, errors as sentences, stable exit codes."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Annotated

import typer

from mskd import __version__
from mskd.errors import MSKDError

# In the order in which --help lists them.
COMMANDS = ("demo", "segment", "train", "distill", "evaluate", "info")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distil heavy medical segmentation networks into light students, and segment with them.",
    epilog="Exit codes: 0 fine, 2 wrong usage or settings, 3 unreadable or unsuitable input, 4 model package refused, "
    "5 out of memory after every fallback, 130 cancelled.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options that stand before the command; ``main`` reads ``--debug`` itself, wherever it stands."""


for _name in COMMANDS:
    importlib.import_module(f"mskd.cli.{_name}").register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with the exit code of what happened."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    try:
        app(arguments, prog_name="mskd")
    except (MSKDError, KeyboardInterrupt, MemoryError, ImportError, OSError) as error:
        if debug:
            traceback.print_exc()
        sentence, code = _explain(error)
        typer.echo(f"mskd: {sentence}", err=True)
        sys.exit(code)


def _explain(error: BaseException) -> tuple[str, int]:
    """A sentence and an exit code for what ended the command."""
    if isinstance(error, MSKDError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "Cancelled.", 130
    if isinstance(error, MemoryError):
        return "Out of memory; close other programs, or give a smaller --roi.", 5
    if isinstance(error, ModuleNotFoundError):
        return f"The Python package '{error.name}' is missing; install the extra that needs it: mskd[train].", 2
    return f"{error}", 3 if isinstance(error, OSError) else 2
