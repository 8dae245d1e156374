"""``mskd segment``: one image, or every case of a folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from mskd.cli.console import Device, interruptible, progress_listener
from mskd.errors import Cancelled, MSKDError, SettingsError
from mskd.events import CancelCheck, Event, Listener
from mskd.files import require_new_file, require_writable_folder, write_text


class Format(str, Enum):
    """File type of the results of a folder."""

    nifti = "nii.gz"
    segmentation = "seg.nrrd"
    nrrd = "nrrd"


@dataclass(frozen=True)
class Job:
    """What all cases of one call share."""

    engine: Any
    region: Any
    overwrite: bool
    cancelled: CancelCheck

    def segment(self, paths: list[Path], output: Path, listen: Listener) -> dict[str, Any]:
        """Read, segment and write one case; returns its report."""
        from mskd.image import read_image, write_labels
        from mskd.image.write import check_output

        check_output(output, overwrite=self.overwrite)
        milliseconds: dict[str, float] = {}
        with _timed("read", milliseconds):
            listen(Event("read", 0, 1))
            image = read_image(paths[0] if len(paths) == 1 else paths)
            listen(Event("read", 1, 1))
        result = self.engine.run(image, self.region, listen, self.cancelled)
        if self.cancelled():
            raise Cancelled("The segmentation was cancelled; nothing was written.")
        with _timed("write", milliseconds):
            write_labels(output, result.labels, self.engine.manifest.labels, overwrite=self.overwrite)
        phases = {"read": milliseconds["read"], **result.report["milliseconds"], "write": milliseconds["write"]}
        phases["total"] = round(phases["total"] + milliseconds["read"] + milliseconds["write"], 2)
        return {"input": [str(path) for path in paths], "output": str(output), **result.report, "milliseconds": phases}


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
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    roi: Annotated[
        str, typer.Option(metavar="XMIN,XMAX,YMIN,YMAX,ZMIN,ZMAX", help="Segment only this box, RAS mm as in Slicer.")
    ] = "",
    report: Annotated[Path | None, typer.Option(help="Write versions, times, memory and volumes to this JSON.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    file_format: Annotated[Format, typer.Option("--format", help="File type for a folder of cases.")] = Format.nifti,
) -> None:
    """Segment an image, or each case of a folder.

    Example: `mskd segment brain.nii.gz --model hippocampus-mr --output hippocampus.seg.nrrd --roi -40,-10,-40,0,-30,0`
    """
    from mskd.image.write import check_output
    from mskd.inference import Engine, Region, keep_freed_memory
    from mskd.package import open_package

    region = Region.parse(roi) if roi else None
    keep_freed_memory()
    if report is not None:
        _check_report(report, [*inputs, output], overwrite)
    package = open_package(model)
    cases = find_cases(inputs, len(package.manifest.channels))
    if cases is None:
        check_output(output, overwrite=overwrite)
    with interruptible() as cancelled:
        job = Job(Engine(package, device.value), region, overwrite, cancelled)
        if cases is None:
            with progress_listener() as listen:
                written = job.segment(inputs, output, listen)
            _write_report(report, written)
            _tell(written)
            return
        worst, entries = _segment_all(job, cases, output, file_format)
    _write_report(report, {"cases": entries})
    if worst:
        raise typer.Exit(worst)


def find_cases(inputs: list[Path], channels: int) -> dict[str, list[Path]] | None:
    """The cases of a folder by name, or None when the input is one image.

    A folder with image files is a folder of cases; for a model of several channels their names end in _0000, _0001,
    ... A folder of nothing but folders is a folder of DICOM cases; any other folder is one DICOM case.
    """
    from mskd.image.read import image_stem

    if len(inputs) != 1 or not inputs[0].is_dir():
        return None
    entries = sorted(entry for entry in inputs[0].iterdir() if not entry.name.startswith("."))
    cases: dict[str, list[Path]] = {}
    for entry in entries:
        name = image_stem(entry)
        if name is None or not entry.is_file():
            continue
        if channels > 1 and name[-5:-4] == "_" and name[-4:].isdigit():
            name = name[:-5]
        elif name in cases:
            raise SettingsError(f"{entry}: two files would give the result '{name}'; rename one of them.")
        cases.setdefault(name, []).append(entry)
    if not cases and entries and all(entry.is_dir() for entry in entries):
        cases = {entry.name: [entry] for entry in entries}
    return cases or None


def _segment_all(
    job: Job, cases: dict[str, list[Path]], folder: Path, file_format: Format
) -> tuple[int, list[dict[str, Any]]]:
    """Segment every case; one that fails does not stop the others. Returns the worst exit code and the reports."""
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file; name a folder for the results of {len(cases)} cases.")
    require_writable_folder(folder, "--output")
    folder.mkdir(parents=True, exist_ok=True)
    worst, entries, failures = 0, [], []
    for index, (name, paths) in enumerate(cases.items()):
        try:
            with progress_listener(f"{name} ({index + 1}/{len(cases)}) ") as listen:
                entries.append({"case": name, **job.segment(paths, folder / f"{name}.{file_format.value}", listen)})
        except Cancelled:
            raise
        except MSKDError as fault:
            worst = max(worst, fault.exit_code)
            failures.append(f"{name}: {fault}")
            entries.append({"case": name, "error": str(fault), "code": fault.code, "exit_code": fault.exit_code})
    typer.echo(f"{len(cases) - len(failures)} of {len(cases)} cases are in {folder}.")
    for failure in failures:
        typer.echo(f"mskd: {failure}", err=True)
    return worst, entries


@contextmanager
def _timed(name: str, milliseconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    milliseconds[name] = round(1000 * (time.perf_counter() - start), 2)


def _tell(report: dict[str, Any]) -> None:
    for name, volume in report["volumes_ml"].items():
        typer.echo(f"{name}: {volume:.2f} mL")
    for sentence in [*report["memory_steps"], *report["warnings"]]:
        typer.echo(sentence, err=True)
    typer.echo(f"{report['output']} ({report['milliseconds']['total'] / 1000:.1f} s on {report['device']})")


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
