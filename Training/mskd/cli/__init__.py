"""The ``mskd`` command: one file a command, errors as sentences, stable exit codes."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from mskd import __version__
from mskd.errors import MSKDError

# Of the extra that `pip install .` leaves out.
TRAIN_PACKAGES = ("monai", "tensorboard", "matplotlib", "scipy")
# In the order in which --help lists them.
COMMANDS = ("demo", "segment", "check", "plan", "train", "distill", "evaluate", "report", "info", "export")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distil heavy medical segmentation networks into light students, and segment with them.",
    epilog="Exit codes: 0 fine, 2 wrong usage or settings, 3 unreadable or unsuitable input, 4 model package refused, "
    "5 out of memory after every fallback, 75 stopped by the system (SIGTERM), 130 cancelled.",
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
    except SystemExit as ended:
        if not _interrupted(ended):
            raise
        _end(KeyboardInterrupt(), debug)
    except (Exception, KeyboardInterrupt) as error:
        _end(error, debug)


def _interrupted(ended: SystemExit) -> bool:
    """Whether Ctrl-C is behind an exit: typer turns it into one, whose code depends on its version."""
    cause: BaseException | None = ended
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _end(error: BaseException, debug: bool) -> NoReturn:
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
    if _is_out_of_memory(error):
        return "Out of memory; close other programs, segment a smaller --roi, or train on a smaller batch or patch.", 5
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").split(".")[0]
        remedy = "to train and evaluate, install mskd[train]" if name in TRAIN_PACKAGES else "install mskd again"
        return f"The Python package '{name}' is missing; {remedy}.", 2
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; make room, or choose a place that can be read and written.", 3
    return f"Unexpected {type(error).__name__} ({error}); please report it with what --debug shows.", 1


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:  # seconds to import, and nothing else fills the memory
        return isinstance(error, MemoryError)
    from mskd.inference.memory import is_out_of_memory

    return is_out_of_memory(error)
