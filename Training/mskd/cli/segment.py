"""``mskd segment``: one image, or every case of a folder."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mskd.cli.console import interruptible, progress_listener
from mskd.errors import SettingsError
from mskd.events import CancelCheck
from mskd.files import require_new_file, require_writable_folder, write_text

if TYPE_CHECKING:
    from mskd.batch import Outcome, Place, Task


class Format(str, Enum):
    """File type of the results of a folder."""

    nifti = "nii.gz"
    segmentation = "seg.nrrd"
    nrrd = "nrrd"


def segment(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="NIfTI, NRRD or MHA file, or a DICOM folder; several files are the channels of one image; a folder of "
            "image files is one case a file.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Package folder, .mskd.zip, or the name of a bundled model.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="FILE.seg.nrrd, .nii.gz or .nrrd; a folder for a folder of cases.")
    ],
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda, cuda:1 or mps; for a folder several, as cuda:0,cuda:1: one process each."),
    ] = "auto",
    backend: Annotated[
        str, typer.Option(help="What runs the network, like torch_eager or openvino; auto measures which is fastest.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(help="float32, bfloat16 or float16; auto keeps float32, but on a GPU takes what is faster."),
    ] = "auto",
    memory: Annotated[str, typer.Option(metavar="SIZE", help="What the process may hold at most, like 4GB.")] = "",
    roi: Annotated[
        str, typer.Option(metavar="XMIN,XMAX,YMIN,YMAX,ZMIN,ZMAX", help="Segment only this box, RAS mm as in Slicer.")
    ] = "",
    uncertainty: Annotated[
        Path | None, typer.Option(help="Write how unsure the network is of each voxel, 0 to 100, to this volume.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write versions, times, memory and volumes to this JSON.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist; of a folder, those made otherwise.")
    ] = False,
    file_format: Annotated[Format, typer.Option("--format", help="File type for a folder of cases.")] = Format.nifti,
    jobs: Annotated[int, typer.Option(min=1, help="Processes on each device, for a folder of cases.")] = 1,
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Segment a folder on the Dask cluster of this scheduler.")
    ] = "",
) -> None:
    """Segment an image, or each case of a folder; the same command goes on where a folder was interrupted.

    Example: `mskd segment brain.nii.gz --model hippocampus-mr --output hippocampus.seg.nrrd --roi -40,-10,-40,0,-30,0`
    """
    from mskd.batch import EngineOptions, Place, Task, find_cases
    from mskd.inference import Region
    from mskd.inference.memory import parse_memory
    from mskd.package import open_package

    region = Region.parse(roi) if roi else None
    limit = parse_memory(memory) if memory else None
    place = Place(tuple(device.split(",")), jobs, scheduler)
    if report is not None:
        _check_report(report, [*inputs, output], overwrite)
    package = open_package(model)
    options = EngineOptions(str(package.path.absolute()), place.devices[0], backend, precision, limit)
    task = Task(options, package.fingerprint, output, region, overwrite)
    found = find_cases(inputs[0], len(package.manifest.channels)) if len(inputs) == 1 and inputs[0].is_dir() else None
    with interruptible() as cancelled:
        if found is None:
            _segment_image(inputs, task, place, report, uncertainty, cancelled)
        else:
            if uncertainty is not None:
                raise SettingsError("--uncertainty is for one image, and this is a folder of cases; give one of them.")
            _segment_folder(found, task, place, file_format, report, cancelled)


def _segment_image(
    inputs: list[Path],
    task: Task,
    place: Place,
    report: Path | None,
    uncertainty: Path | None,
    cancelled: CancelCheck,
) -> None:
    from mskd.batch import Case, segment_image
    from mskd.image import read_geometry
    from mskd.image.write import check_output, check_volume

    if place.processes > 1 or place.scheduler:
        raise SettingsError("Several devices, --jobs and --scheduler divide a folder of cases; this is one image.")
    check_output(task.folder, overwrite=task.overwrite)
    if uncertainty is not None:
        check_volume(uncertainty, overwrite=task.overwrite)
        if uncertainty.resolve() in {path.resolve() for path in [*inputs, task.folder]}:
            raise SettingsError(f"--uncertainty {uncertainty}: this is the input or the output too; name another file.")
    engine = task.build_engine()
    if task.region is None:
        engine.warm_up(read_geometry(inputs[0]))
    case = Case("", tuple(inputs), task.folder)
    with progress_listener() as listen:
        written = segment_image(
            engine,
            case,
            task.region,
            overwrite=task.overwrite,
            uncertainty=uncertainty,
            listen=listen,
            cancelled=cancelled,
        )
    _write_report(report, written)
    for name, volume in written["volumes_ml"].items():
        typer.echo(f"{name}: {volume:.2f} mL")
    for sentence in [*written["memory_steps"], *written["warnings"]]:
        typer.echo(sentence, err=True)
    typer.echo(f"{written['output']} {_how(written)}")


def _segment_folder(
    found: dict[str, tuple[Path, ...]],
    task: Task,
    place: Place,
    file_format: Format,
    report: Path | None,
    cancelled: CancelCheck,
) -> None:
    from mskd.batch import Case, segment_folder

    if task.folder.exists() and not task.folder.is_dir():
        raise SettingsError(f"{task.folder} is a file; name a folder for the results of {len(found)} cases.")
    require_writable_folder(task.folder, "--output")
    cases = [Case(name, paths, task.folder / f"{name}.{file_format.value}") for name, paths in found.items()]
    with progress_listener() as listen:
        ledger = segment_folder(cases, task, place, _tell, listen, cancelled)
    typer.echo(ledger.summary())
    outcomes = ledger.outcomes()
    _write_report(report, {"cases": [outcome.entry for outcome in outcomes]})
    worst = max(outcome.exit_code for outcome in outcomes)
    if worst:
        raise typer.Exit(worst)


def _tell(outcome: Outcome) -> None:
    if outcome.error:
        typer.echo(f"mskd: {outcome.case}: {outcome.error}", err=True)
    elif not outcome.kept:
        for sentence in [*outcome.entry["memory_steps"], *outcome.entry["warnings"]]:
            typer.echo(f"{outcome.case}: {sentence}", err=True)
        typer.echo(f"{outcome.case} {_how(outcome.entry)}", err=True)


def _how(entry: dict[str, Any]) -> str:
    return f"({entry['milliseconds']['total'] / 1000:.1f} s on {entry['device']})"


def _write_report(path: Path | None, report: dict[str, Any]) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(report, indent=2) + "\n")


def _check_report(report: Path, taken: list[Path], overwrite: bool) -> None:
    """Refuse, before anything is computed, a report that could not be written, or would replace input or result."""
    require_new_file(report, "--report", overwrite=overwrite)
    if report.resolve() in {path.resolve() for path in taken}:
        raise SettingsError(f"--report {report}: this is the input or the output too; give it a name of its own.")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(segment)
