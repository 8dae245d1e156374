"""What the panel keeps in the scene."""

from typing import Any

from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import parameterNodeWrapper


# No postponed annotations here: the wrapper reads the types themselves.
@parameterNodeWrapper
class MSKDSegmentationParameterNode:
    """The choices of one panel.

    ``model`` is a model's name, which means the same on another computer; ``device`` one of auto, cpu, cuda, mps.
    """

    inputVolume: vtkMRMLScalarVolumeNode  # noqa: N815
    region: vtkMRMLMarkupsROINode
    outputSegmentation: vtkMRMLSegmentationNode  # noqa: N815
    uncertaintyVolume: vtkMRMLScalarVolumeNode  # noqa: N815
    model: str = ""
    device: str = "auto"


def connect(parameters: Any, ui: Any) -> int:
    """Tie each widget with a ``SlicerParameterName`` to its parameter; returns the tag for ``disconnectGui``.

    ``connectGui`` does the same and in many versions of Slicer returns no tag, so that widgets, once connected, would
    stay so, also after their end.
    """
    named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
    return parameters.connectParametersToGui({name: widget for name, widget in named.items() if name})
