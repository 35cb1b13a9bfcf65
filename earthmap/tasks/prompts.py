"""The words that the model is given: before each picture, and for each question. The same in training and inference."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from earthmap.errors import QueryError
from earthmap.tasks.registry import TASKS
from earthmap.tasks.serialization import WORDS
from earthmap.tasks.times import day_text, instant_text

if TYPE_CHECKING:
    from earthmap.tasks.query import Query

PROMPT_VERSION = "1"
"""Raised when any prompt changes; it is recorded with a checkpoint and is part of a predictor's key."""

YES_NO = ("yes", "no")


def picture_name(
    view: str, *, datetime: dt.datetime | None = None, hours: bool = False, seen_share: float = 1.0
) -> str:  # fmt: skip
    """The words before a picture: its view, its date (UTC; with `hours` the instant) and, below 1, the share of it that
    holds valid pixels.

    Raises:
        QueryError: for a share that is none.

    Example:
        >>> picture_name("rgb", datetime=dt.datetime(2024, 6, 1, tzinfo=dt.UTC), seen_share=0.8349)
        'rgb, 2024-06-01, 83% seen: '
    """
    if not 0.0 <= seen_share <= 1.0:
        raise QueryError(f"a seen share of {seen_share}", expected="a number from 0 to 1")
    words = [view]
    if datetime is not None:
        words.append(instant_text(datetime) if hours else day_text(datetime))
    if seen_share < 1.0:
        # Rounding must not say that all, or nothing, is seen where that is not so.
        percent = min(max(round(seen_share * 100), 1), 99) if seen_share else 0
        words.append(f"{percent}% seen")
    return ", ".join(words) + ": "


def frame_name(seconds: float) -> str:
    """The words before two frames of a video: the middle of their times, counted from the first frame.

    As the public Qwen3-VL checkpoints were trained (transformers' `Qwen3VLProcessor`).

    Example:
        >>> frame_name(1.04)
        '<1.0 seconds>'
    """
    return f"<{seconds:.1f} seconds>"


def closed_choices(query: Query) -> tuple[str, ...]:
    """The texts of which one is the reply, and which are scored; for labels those of each by itself.

    Empty for a query whose reply is written freely.

    Example:
        >>> from earthmap.tasks import make_query
        >>> closed_choices(make_query("Is there any water?"))
        ('yes', 'no')
    """
    task = TASKS[query.task]
    if task.answer in ("yes/no", "labels"):
        return YES_NO
    return query.choices if task.chooses else ()


def question_prompt(query: Query, *, choices: Sequence[str] | None = None) -> str:
    """The words that a question adds behind the pictures.

    Args:
        query: The question.
        choices: `closed_choices(query)` in the order in which they are to be named; None for their own.

    Example:
        >>> from earthmap.tasks import make_query
        >>> question_prompt(make_query("Is there any water?"), choices=("no", "yes"))
        'Is there any water?\\nReply with one of: no; yes.'
    """
    return _filled(query, query.choices if TASKS[query.task].answer == "labels" else query.targets, choices)


def label_questions(query: Query, *, choices: Sequence[str] | None = None) -> tuple[str, ...]:
    """The words of one yes-or-no question for each label of an independent query, in the order of its choices.

    Empty for a query of another scoring. `choices` as in `question_prompt`.
    """
    if TASKS[query.task].scoring != "independent":
        return ()
    return tuple(_filled(query, (label,), choices) for label in query.choices)


def _filled(query: Query, targets: Sequence[str], choices: Sequence[str] | None) -> str:
    """The template with its places filled; a line whose place stays empty is left out."""
    places = {
        "text": query.text,
        "targets": ", ".join(targets),
        "choices": "; ".join(closed_choices(query) if choices is None else choices),
        "shape": WORDS[query.shape] if query.shape else "",
    }
    empty = [f"{{{name}}}" for name, words in places.items() if not words]
    lines = TASKS[query.task].template.split("\n")
    return "\n".join(line.format(**places) for line in lines if not any(place in line for place in empty))
