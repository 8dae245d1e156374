"""How good a segmentation is: metrics, tables, overlays."""

from mskd.evaluation.metrics import Scores, per_class_dice, score

__all__ = ["Scores", "per_class_dice", "score"]
