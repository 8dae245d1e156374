"""Curves and pictures for TensorBoard, in step: its own writers do it in a thread that dies loudly on a full disk."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.image import imsave
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

FORMAT = "brain.Event:2"


class Curves:
    """One event file in ``folder``, opened at the first row.

    Args:
        first_step: TensorBoard forgets what earlier files of the folder hold from this step on.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder, self._first_step = folder, first_step
        self._path: Path | None = None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append one point to each curve.

        Raises:
            OSError: the file cannot be written.
        """
        self._write(step, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def add_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Append pictures, uint8 ``[height, width, 3]``.

        Raises:
            OSError: the file cannot be written.
        """
        self._write(step, [Summary.Value(tag=name, image=_png(image)) for name, image in images.items()])

    def _write(self, step: int, values: list[Summary.Value]) -> None:
        events = [Event(step=step, wall_time=time.time(), summary=Summary(value=values))]
        if self._path is None:
            self._folder.mkdir(exist_ok=True)
            # A file name that sorts by time, as TensorBoard reads them.
            name = f"events.out.tfevents.{time.time_ns() // 1_000_000_000:010d}.{socket.gethostname()}.{os.getpid()}"
            self._path = self._folder / f"{name}.{time.time_ns() % 1_000_000_000:09d}"
            start = SessionLog(status=SessionLog.START)
            events.insert(0, Event(step=self._first_step, wall_time=time.time(), session_log=start))
            events.insert(0, Event(step=self._first_step, wall_time=time.time(), file_version=FORMAT))
        with self._path.open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())


def _png(image: np.ndarray) -> Summary.Image:
    buffer = io.BytesIO()
    imsave(buffer, image, format="png")
    height, width, channels = image.shape
    return Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=buffer.getvalue())
