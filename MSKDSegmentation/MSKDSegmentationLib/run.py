"""One segmentation run: what is sent, the private folder its arrays travel through, and how the answer is written."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .catalogue import ModelEntry
from .errors import SegmentationError
from .placement import new_segmentation, place_beside
from .private_folder import new_private_folder
from .segments import check_output, write_segments
from .uncertainty import check_uncertainty, write_uncertainty
from .undo import UndoStep
from .volume import Grid, grid_of, region_corners, to_world_matrix, voxels

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass
class Outcome:
    """How a run ended: with a segmentation node and the worker's report, cancelled, or with an error sentence."""

    segmentation: Any = None
    report: dict[str, Any] = field(default_factory=dict)
    labels: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    cancelled: bool = False


class Run:
    """Checks its inputs and writes the voxels to a private folder when it is made; ``close`` removes the folder.

    Args:
        volume: Scalar volume node.
        segmentation: Node to update, or None for a new one, which is made only when there is a result.
        device: One of ``DEVICES``.
        region: Markups ROI node, or (minimum, maximum) points in RAS mm, or None for the whole volume.
        uncertainty: Scalar volume node for how unsure the network is of each voxel in the region, or None.

    Raises:
        SegmentationError: an input does not suit.
    """

    def __init__(
        self, volume: Any, model: ModelEntry, segmentation: Any, device: str, region: Any, uncertainty: Any = None
    ) -> None:
        if device not in DEVICES:
            raise SegmentationError(f"There is no device '{device}'; choose one of {', '.join(DEVICES)}.")
        self.volume, self.model, self.segmentation, self.uncertainty = volume, model, segmentation, uncertainty
        if segmentation is not None:
            check_output(segmentation)
            to_world_matrix(segmentation)
        if uncertainty is not None:
            check_uncertainty(uncertainty, volume)
        self.grid: Grid = grid_of(volume)
        # The image itself is kept: VTK may give its address to the next one.
        self._image = volume.GetImageData()
        self._image_time = self._image.GetMTime()
        box = None if region is None else self.grid.region_around(region_corners(region))
        self._folder = new_private_folder()
        try:
            np.save(self._folder / "in.npy", voxels(volume), allow_pickle=False)
        except OSError as failure:
            self.close()
            raise SegmentationError(
                f"'{self._folder}' cannot be written ({failure.strerror}); free some space."
            ) from failure
        self.request = {
            "model": str(model.path),
            "device": device,
            "input": str(self._folder / "in.npy"),
            "output": str(self._folder / "out.npy"),
            "uncertainty": None if uncertainty is None else str(self._folder / "uncertainty.npy"),
            "geometry": self.grid.as_geometry(),
            "region": box,
        }

    def write(self, answer: dict[str, Any], undo: UndoStep) -> Outcome:
        """Write the worker's result into the scene, its segments as one undo step.

        Raises:
            SegmentationError: the volume has changed since, or the answer does not fit it; the scene is untouched.
        """
        labels = self._read(answer, "output")
        percent = None if self.uncertainty is None else self._read(answer, "uncertainty")
        self._check_unchanged()
        made_here = self.segmentation is None or self.segmentation.GetScene() is None
        segmentation = new_segmentation(self.volume) if made_here else self.segmentation
        undo.save(segmentation)
        try:
            write_segments(labels, answer["labels"], self.model.name, self.volume, segmentation)
            if percent is not None and self.uncertainty.GetScene() is not None:
                write_uncertainty(percent, self.volume, self.uncertainty)
                place_beside(self.volume, self.uncertainty)
        except Exception:
            undo.seal()
            undo.restore()
            if made_here:
                segmentation.GetScene().RemoveNode(segmentation)
            raise
        undo.seal()
        # One that was created in the panel's list has no display yet, and would stay unseen.
        segmentation.CreateDefaultDisplayNodes()
        place_beside(self.volume, segmentation)
        return Outcome(segmentation, dict(answer.get("report") or {}), list(answer["labels"]))

    def close(self) -> None:
        """Remove the private folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, answer: dict[str, Any], name: str) -> np.ndarray:
        """All voxels of a result; the file holds those of the answer's box, and the others are 0."""
        try:
            part = np.load(Path(answer[name]), allow_pickle=False)
        except (OSError, ValueError) as failure:
            raise SegmentationError(f"The engine's result cannot be read ({failure}); run it again.") from failure
        found = np.zeros(self.grid.shape, np.uint8)
        box = tuple(slice(first, end) for first, end in answer["box"])
        whole = self.request["region"] is None
        fits = len(box) == 3 and found[box].shape == part.shape and (part.shape == found.shape or not whole)
        if part.dtype != np.uint8 or not fits:
            raise SegmentationError(
                f"The engine returned {part.dtype} {part.shape} at {answer['box']} for a volume of {self.grid.shape}; "
                "reinstall MSKD."
            )
        found[box] = part
        return found

    def _check_unchanged(self) -> None:
        if self.volume.GetScene() is None:
            raise SegmentationError("The input volume was removed during the run; nothing was written.")
        # A sequence may have moved on to another frame, whose segments these are not.
        if self.volume.GetImageData() is not self._image or self._image.GetMTime() != self._image_time:
            raise SegmentationError(f"The image in '{self.volume.GetName()}' changed during the run; run it again.")
        now = grid_of(self.volume)
        if not np.allclose(now.voxel_to_world, self.grid.voxel_to_world):
            raise SegmentationError(f"'{self.volume.GetName()}' was moved during the run; run it again.")
