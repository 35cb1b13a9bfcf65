"""What can be asked, and what an answer is (layer 1: pure)."""

from earthmap.tasks.answer import (
    STATUSES,
    UNSEEN,
    Answer,
    answer_columns,
    answer_schema,
    decode_mask,
    encode_mask,
)
from earthmap.tasks.query import Query
from earthmap.tasks.registry import MAX_TEXT, SYNONYMS, TARGETS, TASKS, Task, guess_task, make_query, mask_legend

__all__ = [
    "MAX_TEXT",
    "STATUSES",
    "SYNONYMS",
    "TARGETS",
    "TASKS",
    "UNSEEN",
    "Answer",
    "Query",
    "Task",
    "answer_columns",
    "answer_schema",
    "decode_mask",
    "encode_mask",
    "guess_task",
    "make_query",
    "mask_legend",
]
