"""How well a model answers, beside the best constant answer and `spectral` (layer 6: pure; no Ray)."""

from earthmap.evaluation.drawn import LOOKS, Batch, Look, draw_batch, measure_drawn
from earthmap.evaluation.exams import Exam, Rule, ask_all, balanced, best_constant, is_written, take
from earthmap.evaluation.figures import Measured, headline, interval, table, write_figures

__all__ = [
    "LOOKS",
    "Batch",
    "Exam",
    "Look",
    "Measured",
    "Rule",
    "ask_all",
    "balanced",
    "best_constant",
    "draw_batch",
    "headline",
    "interval",
    "is_written",
    "measure_drawn",
    "table",
    "take",
    "write_figures",
]
