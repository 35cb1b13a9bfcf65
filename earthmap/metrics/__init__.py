"""Figures of merit, each beside a constant answer (layer 4: pure)."""

from earthmap.metrics.boxes import f1_at_half, overlap
from earthmap.metrics.intervals import interval, reach
from earthmap.metrics.masks import IGNORE, METRICS, Bootstrap, MaskScores, Score, score_classes, score_mask

__all__ = [
    "IGNORE",
    "METRICS",
    "Bootstrap",
    "MaskScores",
    "Score",
    "f1_at_half",
    "interval",
    "overlap",
    "reach",
    "score_classes",
    "score_mask",
]
