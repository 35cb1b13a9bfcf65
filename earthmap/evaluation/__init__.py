"""How well a model answers, beside the best constant answer and `spectral` (layer 6: pure; no Ray)."""

from earthmap.evaluation.calibrating import calibrate, calibrate_looks, calibration_table, said_in, state_drawn
from earthmap.evaluation.drawn import LOOKS, Batch, Look, draw_batch, exams_of, measure_drawn, measure_looks
from earthmap.evaluation.exams import (
    Exam,
    Paper,
    Rule,
    ask_all,
    balanced,
    best_constant,
    is_written,
    mark,
    open_unjudged,
    take,
)
from earthmap.evaluation.figures import Measured, headline, table, write_figures
from earthmap.evaluation.real import GROUPS, Scene, Shot, measure_real, measure_scene, real_scenes, real_tables
from earthmap.evaluation.scene_errors import count_errors, measure_errors

__all__ = [
    "GROUPS",
    "LOOKS",
    "Batch",
    "Exam",
    "Look",
    "Measured",
    "Paper",
    "Rule",
    "Scene",
    "Shot",
    "ask_all",
    "balanced",
    "best_constant",
    "calibrate",
    "calibrate_looks",
    "calibration_table",
    "count_errors",
    "draw_batch",
    "exams_of",
    "headline",
    "is_written",
    "mark",
    "measure_drawn",
    "measure_errors",
    "measure_looks",
    "measure_real",
    "measure_scene",
    "open_unjudged",
    "real_scenes",
    "real_tables",
    "said_in",
    "state_drawn",
    "table",
    "take",
    "write_figures",
]
