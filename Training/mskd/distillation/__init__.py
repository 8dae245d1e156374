"""Distillation: features by module path, regions, and one file per method."""

from mskd.distillation.base import METHODS, Method, MethodSettings
from mskd.distillation.calibrate import Calibration, calibrate
from mskd.distillation.criterion import Distillation
from mskd.distillation.outputs import Outputs
from mskd.distillation.settings import DistillationSettings
from mskd.distillation.taps import Taps

__all__ = [
    "METHODS",
    "Calibration",
    "Distillation",
    "DistillationSettings",
    "Method",
    "MethodSettings",
    "Outputs",
    "Taps",
    "calibrate",
]
