"""What a teacher is to its student, and how one is opened from a path or a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from mskd.errors import SettingsError
from mskd.registry import Registry
from mskd.spec import Channel, Label, Normalization


@dataclass(frozen=True)
class Teacher:
    """A trained network with the meaning of what goes in and comes out.

    Args:
        network: ``[N, C, *spatial]`` -> logits ``[N, K, *spatial]``, with ``levels()`` as SegmentationNetwork has it.
        spacing, orientation, normalization: What the network wants to see; see Manifest.
        fingerprint: SHA-256 of the file or folder it came from.
        path: Where it came from, if that is a file or folder.
    """

    name: str
    network: nn.Module
    dim: int
    channels: tuple[Channel, ...]
    labels: tuple[Label, ...]
    spacing: tuple[float | None, ...]
    orientation: str
    normalization: Normalization
    fingerprint: str
    path: Path | None = None


class TeacherFormat(Protocol):
    """A way to store a trained network."""

    def recognises(self, source: str) -> bool:
        """Whether the path or name looks like this format."""

    def open(self, source: str) -> Teacher:
        """Load the network, in eval mode, on the CPU."""


TEACHERS: Registry[TeacherFormat] = Registry("teacher format", "mskd.teachers")


def open_teacher(source: str) -> Teacher:
    """Open a teacher, recognising its format.

    Raises:
        SettingsError: no format knows the source; PackageError: the format does, and refuses it.
    """
    for name in TEACHERS.names():
        if TEACHERS[name].recognises(source):
            return TEACHERS[name].open(source)
    raise SettingsError(
        f"--teacher {source}: this is none of the known formats ({', '.join(TEACHERS.names())}); give a model package, "
        "such as RUN/model of a finished run, or the name of a bundled model."
    )


def require_same_task(
    teacher: Teacher, dim: int, labels: Sequence[Label], channels: int, wanted: tuple[object, ...]
) -> None:
    """Refuse a teacher that sees other images or names other organs than its student.

    Args:
        dim: Spatial axes of the student.
        channels: Number of input channels of the student.
        wanted: (spacing, orientation, normalization) of the student.

    Raises:
        SettingsError: names what differs.
    """
    theirs, ours = [label.name for label in teacher.labels], [label.name for label in labels]
    if theirs != ours:
        raise SettingsError(
            f"Teacher '{teacher.name}' segments {theirs}, the student is to segment {ours}; a student can only be "
            "distilled from a teacher with the same labels in the same order."
        )
    if (teacher.dim, len(teacher.channels)) != (dim, channels):
        raise SettingsError(
            f"Teacher '{teacher.name}' takes {teacher.dim}D images of {len(teacher.channels)} channels, the student "
            f"{dim}D of {channels}; choose a teacher and a student of one kind."
        )
    given = (teacher.spacing, teacher.orientation, teacher.normalization)
    for name, theirs_, ours_ in zip(("spacing", "orientation", "normalization"), given, wanted, strict=True):
        if theirs_ != ours_:
            raise SettingsError(
                f"Teacher '{teacher.name}' was trained with {name} {theirs_}, the recipe asks for {ours_}; set "
                f"input.{name} to the teacher's so that both see the same voxels."
            )
