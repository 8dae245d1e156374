"""Why Apply cannot be pressed yet, in a sentence."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from .catalogue import ModelEntry
from .errors import SegmentationError
from .segments import check_output
from .uncertainty import check_uncertainty
from .volume import grid_of, region_corners, to_world_matrix


def obstacle(
    volume: Any, model: ModelEntry | None, wanted_model: str, segmentation: Any, region: Any, uncertainty: Any = None
) -> str:
    """The first thing that is missing or unsuitable, or an empty string when a run can begin.

    Args:
        wanted_model: The name kept in the scene, which may be of a model that is not installed here.
    """
    if volume is None:
        return _("Choose an input volume.")
    if model is None:
        if wanted_model:
            return _("The model '{name}' is not installed here; choose another.").format(name=wanted_model)
        return _("There is no model; install the MSKD extension again.")
    if model.problem:
        return model.problem
    try:
        grid_of(volume)
        if segmentation is not None:
            check_output(segmentation)
            to_world_matrix(segmentation)
        if region is not None:
            region_corners(region)
        if uncertainty is not None:
            check_uncertainty(uncertainty, volume)
    except SegmentationError as error:
        return str(error)
    return ""
