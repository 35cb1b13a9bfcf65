"""Figures of merit, each beside a constant answer (layer 4: pure)."""

from earthmap.metrics.masks import IGNORE, METRICS, Bootstrap, MaskScores, Score, score_classes, score_mask

__all__ = ["IGNORE", "METRICS", "Bootstrap", "MaskScores", "Score", "score_classes", "score_mask"]
