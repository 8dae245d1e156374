"""A model for other programs: one format a file, each checked against PyTorch before it is left on the disk."""

from mskd.export.base import FORMATS, Format
from mskd.export.run import ExportReport, export_package

__all__ = ["FORMATS", "ExportReport", "Format", "export_package"]
