"""Images and label maps with their geometry: NIfTI, NRRD, MetaImage and DICOM in, label maps out."""

from mskd.image.geometry import Geometry, Image, LabelMap
from mskd.image.read import read_geometry, read_image, read_labels
from mskd.image.write import write_labels, write_volume

__all__ = [
    "Geometry",
    "Image",
    "LabelMap",
    "read_geometry",
    "read_image",
    "read_labels",
    "write_labels",
    "write_volume",
]
