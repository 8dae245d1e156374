"""What the panel keeps in the scene."""

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
    model: str = ""
    device: str = "auto"
