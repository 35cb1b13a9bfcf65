"""Figures of merit, each beside a constant answer (layer 4: pure)."""

from earthmap.metrics.area import AreaEstimate, ClassEstimate, Figure, LabelledSample, Stratum, estimate_areas
from earthmap.metrics.audits import Audit, upper_bound
from earthmap.metrics.boxes import f1_at_half, overlap
from earthmap.metrics.intervals import interval, reach
from earthmap.metrics.masks import IGNORE, METRICS, Bootstrap, MaskScores, Score, score_classes, score_mask
from earthmap.metrics.sampling import Drawn, StratifiedDraw, allocate, boundary_strata
from earthmap.metrics.tracks import IdentityScore, score_identities

__all__ = [
    "IGNORE",
    "METRICS",
    "AreaEstimate",
    "Audit",
    "Bootstrap",
    "ClassEstimate",
    "Drawn",
    "Figure",
    "IdentityScore",
    "LabelledSample",
    "MaskScores",
    "Score",
    "StratifiedDraw",
    "Stratum",
    "allocate",
    "boundary_strata",
    "estimate_areas",
    "f1_at_half",
    "interval",
    "overlap",
    "reach",
    "score_classes",
    "score_identities",
    "score_mask",
    "upper_bound",
]
