"""Questions of data sets in the words in which the predictor asks, with what is known of their answers.

What a question asks for is told from its words as `earthmap ask` tells it, and from its answer: SLIS is learned
terminal by terminal, and of a question whose answer is one of its choices the choices are kept.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.errors import QueryError
from earthmap.tasks import CATEGORIES, TASKS, Query, closed_choices, guess_task, make_query, question_prompt
from earthmap.tasks.query import MAX_TEXT
from earthmap.tasks.serialization import Instance, parse, serialize
from earthmap.training.faults import Unfit
from earthmap.training.rows import Asked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.training.conversations import Exchange

_SHAPE = re.compile(r"(?<![a-z])(?:point|obox|box|poly|mask)\s{0,4}\[", re.IGNORECASE)
_NUMBER = r"\s*-?\d+(?:\.\d+)?\s*"
_FOREIGN = re.compile(
    r"<(?:box|quad|poly|ref|loc\d*|p)>|bbox|\{\s*<\d|<\d+>\s*<\d+>"
    rf"|(?<![a-z\]])[\[(]{_NUMBER}(?:,{_NUMBER}){{3,}}[\])]",
    re.IGNORECASE,
)
"""Coordinates as other models write them: they would be wrong once the picture is padded or shrunk."""
_REPLY = re.compile(r"\nReply with (?:one of: (?P<choices>[^\n]*)\.$)?", re.MULTILINE)
FEW_WORDS = 16
"""Words of an answer up to which "Reply in a few words" is asked."""

_CATEGORY_TASKS = {"ground": "ground", "detect": "detect", "segment": "segment", "caption": "caption"}
"""The task that a category stands for where the words do not tell; the other categories are told by the words."""


def asked_of(
    exchange: Exchange, *, task: str | None = None, pictures: int = 1, scale: tuple[float, float] = (1.0, 1.0)
) -> Asked:
    """A question of a data set as a row asks it.

    Args:
        exchange: The question and the answer.
        task: A row of `earthmap.tasks.TASKS` or `CATEGORIES`, or any other word; None where the data tell none.
        pictures: How many there are: change is asked of two.
        scale: How much of the row's width and height the picture fills that shapes in the answer are told of.

    Raises:
        Unfit: for an answer whose shapes cannot be read, or whose words hold shapes; for coordinates of other kinds,
            and in the question, where they cannot be moved.
    """
    text, answer = " ".join(exchange.question.split()), exchange.answer.strip()
    instances = _instances(answer)
    if _FOREIGN.search(text) if instances is not None else _FOREIGN.search(f"{text}\n{answer}"):
        raise Unfit("coordinates", f"{text[:60]!r}: {answer[:60]!r} has coordinates of another convention than SLIS")
    if scale != (1.0, 1.0) and _SHAPE.search(text):
        raise Unfit("coordinates", f"{text[:80]!r} names a place in a picture that was padded or shrunk")
    if instances is not None:
        written = [serialize([_moved(one, scale)]) for one in instances]
        if "none" in written:
            raise Unfit("coordinates", f"a shape of {exchange.answer[:80]!r} has no extent after rounding")
        answer = ";".join(written)
    kind = instances[0].kind if instances else None
    given = _REPLY.search(exchange.question)
    if given is not None:
        text = exchange.question[: given.start()].split("\n")[0]
    query = _fitting(_query(text, task, _offered(given), pictures=pictures), answer, kind)
    if query is None or (query.task == "vqa" and given is None and len(answer.split()) > FEW_WORDS):
        return _untold(exchange, answer, task=task, kind=kind)
    choices = closed_choices(query)
    return Asked(
        question=question_prompt(query) if given is None else exchange.question.strip(),
        answer=_chosen(answer, choices) or answer,
        category=TASKS[query.task].category,
        spatial=query.shape is not None,
        choices=choices,
        task=query.task,
    )


def _untold(exchange: Exchange, answer: str, *, task: str | None, kind: str | None) -> Asked:
    """A question of which only its category is known, in its own words."""
    row = TASKS.get(task or "")
    category = task if task in CATEGORIES else row.category if row else None
    if kind is not None and category not in ("ground", "detect", "segment", "change", "track"):
        category = "segment" if kind == "mask" else "detect"
    return Asked(
        question=exchange.question.strip(), answer=answer, category=category or "vqa", spatial=kind is not None
    )


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────


def _query(text: str, task: str | None, offered: tuple[str, ...], *, pictures: int) -> Query | None:
    """The query that the words ask for; None where nobody could tell."""
    named = task if task in TASKS else _CATEGORY_TASKS.get(task or "")
    try:
        named = named or guess_task(text, True, with_choices=bool(offered))
        choices = offered if TASKS[named].chooses and offered else None
        found = make_query(text[:MAX_TEXT], task=named, choices=choices, open_vocabulary=True)
    except QueryError:
        return None
    wanted = TASKS[found.task].dates
    fits = wanted == 1 or (pictures == 2 if wanted == 2 else pictures >= 2)
    return found if fits else None


def _fitting(query: Query | None, answer: str, kind: str | None) -> Query | None:
    """The query that this answer answers: its own, or the plain one in words; None where there is none."""
    if query is None:
        return None
    row = TASKS[query.task]
    if kind is not None:
        return _with_shape(query, kind)
    if row.shapes:
        return query if answer.lower().rstrip(".") == "none" else _in_words(query)
    if row.answer in ("yes/no", "choice"):
        return query if _chosen(answer, closed_choices(query)) else _in_words(query)
    return _in_words(query) if row.answer == "labels" else query


def _with_shape(query: Query, kind: str) -> Query | None:
    """The query with the shape that the answer has; another task where the words told one without such shapes."""
    if kind in TASKS[query.task].shapes:
        return replace(query, shape=kind)
    task = next((name for name in ("detect", "segment") if kind in TASKS[name].shapes), None)
    try:
        return None if task is None else make_query(query.text, task=task, shape=kind, open_vocabulary=True)
    except QueryError:
        return None


def _in_words(query: Query) -> Query:
    """The same question, answered in a few words."""
    return make_query(query.text, task="vqa", open_vocabulary=True)


def _offered(given: re.Match[str] | None) -> tuple[str, ...]:
    """The choices that a question names after `Reply with one of:`."""
    named = given["choices"] if given and given["choices"] else ""
    return tuple(text.strip() for text in named.split(";") if text.strip())


def _chosen(answer: str, choices: tuple[str, ...]) -> str | None:
    """The choice that an answer is, whatever its capitals and last full stop."""
    plain = " ".join(answer.split()).rstrip(".").casefold()
    return next((choice for choice in choices if choice.casefold() == plain), None)


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────


def _instances(answer: str) -> tuple[Instance, ...] | None:
    """The shapes of an answer that is SLIS and nothing else; None for one in words.

    Raises:
        Unfit: where shapes stand among words, or cannot be read.
    """
    if not _SHAPE.search(answer):
        return None
    pieces = [piece.strip() for piece in answer.strip().rstrip(".").split(";")]
    read = [parse(piece) for piece in pieces if piece]
    is_plain = all(len(one.instances) == 1 and not one.rejected for one in read)
    ends = all(piece.endswith("]") or re.search(r"\]\s{0,2}@\s{0,2}[\w:.-]+$", piece) for piece in pieces if piece)
    if not is_plain or not ends:
        raise Unfit("coordinates", f"{answer[:80]!r} is not shapes alone that can be read")
    return tuple(one.instances[0] for one in read)


def _moved(one: Instance, scale: tuple[float, float]) -> Instance:
    """The instance where the picture fills `scale` of the row's, from the upper left corner on."""
    if scale == (1.0, 1.0):
        return one
    if one.mask is not None:
        return replace(one, mask=_moved_mask(one.mask, scale))
    return replace(one, geometry=shapely.transform(one.geometry, lambda corners: corners * np.array(scale)))


def _moved_mask(mask: NDArray[np.bool_], scale: tuple[float, float]) -> NDArray[np.bool_]:
    """Each cell of the new mask is what its middle falls on: off by less than half a cell of the old."""
    middle = (np.arange(len(mask)) + 0.5) / len(mask)
    columns, rows = (np.floor(middle / part * len(mask)).astype(int) for part in scale)
    found = np.zeros_like(mask)
    inside = np.ix_(rows < len(mask), columns < len(mask))
    found[inside] = mask[np.ix_(rows[rows < len(mask)], columns[columns < len(mask)])]
    return found
