"""What a label, a model and a run are: typed, validated data without torch."""

from mskd.spec.base import Strict, validate, validate_draft
from mskd.spec.labels import IGNORE, Code, Label, Terminology
from mskd.spec.model import (
    MOST_CHANNELS,
    SCHEMA_VERSION,
    Channel,
    Manifest,
    Metric,
    NetworkSpec,
    Normalization,
    Provenance,
)
from mskd.spec.trainingdata import ImageFacts, TrainingData

__all__ = [
    "IGNORE",
    "MOST_CHANNELS",
    "SCHEMA_VERSION",
    "Channel",
    "Code",
    "ImageFacts",
    "Label",
    "Manifest",
    "Metric",
    "NetworkSpec",
    "Normalization",
    "Provenance",
    "Strict",
    "Terminology",
    "TrainingData",
    "validate",
    "validate_draft",
]
