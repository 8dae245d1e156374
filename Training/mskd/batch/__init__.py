"""Many volumes: the cases of a folder through one engine, several processes or a cluster, and what a kill leaves."""

from mskd.batch.case import Case, segment_image
from mskd.batch.cases import find_cases
from mskd.batch.outcome import Outcome
from mskd.batch.run import Place, segment_folder
from mskd.batch.task import EngineOptions, Task

__all__ = ["Case", "EngineOptions", "Outcome", "Place", "Task", "find_cases", "segment_folder", "segment_image"]
