"""What can be asked, and what an answer is (layer 1: pure)."""

from earthmap.tasks.answer import (
    STATUSES,
    UNSEEN,
    Answer,
    answer_columns,
    answer_from_columns,
    answer_schema,
    decode_mask,
    encode_mask,
)
from earthmap.tasks.prompts import (
    PROMPT_VERSION,
    closed_choices,
    frame_name,
    label_questions,
    picture_name,
    question_prompt,
)
from earthmap.tasks.query import MAX_TEXT, Query, beyond_land_cover, make_query, mask_legend
from earthmap.tasks.registry import CATEGORIES, LAND_COVER_TASKS, PLAIN_TASKS, TASKS, Task
from earthmap.tasks.understanding import guess_task
from earthmap.tasks.vocabulary import CHANGES, SYNONYMS, TARGETS

__all__ = [
    "CATEGORIES",
    "CHANGES",
    "LAND_COVER_TASKS",
    "MAX_TEXT",
    "PLAIN_TASKS",
    "PROMPT_VERSION",
    "STATUSES",
    "SYNONYMS",
    "TARGETS",
    "TASKS",
    "UNSEEN",
    "Answer",
    "Query",
    "Task",
    "answer_columns",
    "answer_from_columns",
    "answer_schema",
    "beyond_land_cover",
    "closed_choices",
    "decode_mask",
    "encode_mask",
    "frame_name",
    "guess_task",
    "label_questions",
    "make_query",
    "mask_legend",
    "picture_name",
    "question_prompt",
]
