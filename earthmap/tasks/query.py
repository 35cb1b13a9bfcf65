"""A query: one question, made exact."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from earthmap.content import content_key
from earthmap.errors import QueryError
from earthmap.sensors.masks import REASONS
from earthmap.tasks.phrases import choices_in, shape_in, targets_in
from earthmap.tasks.registry import LAND_COVER_TASKS, PLAIN_TASKS, TASKS, Task
from earthmap.tasks.serialization import plain_label
from earthmap.tasks.understanding import examples, guess_task, land_cover_in, land_cover_of, refuse_beyond_land_cover
from earthmap.tasks.vocabulary import FLOOD, PERMANENT, TARGETS, names_flood, simplified

MAX_TEXT = 10_000
"""Most characters of a question."""

MAX_CHOICES = 128
"""Most choices or labels of a question."""

MAX_CHOICE = 200
"""Most characters of a choice."""

MAX_TARGETS = 64
"""Most targets of a question: a mask has codes for two ways of change of each."""

DEFAULT_UNSEEN = ("nodata", "cloud", "layover")
"""Reasons that count as unseen unless a query says otherwise: those under which nothing of the ground was measured.
Layover and radar shadow are radar's nodata: another place's echo, or none, which every threshold takes for water.
Shadow and dark stay, for flood water is classed so; what stays is named in the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question about every tile. Made from text by `make_query`."""

    text: str
    """The question as it was asked."""
    task: str
    """Row of `earthmap.tasks.registry.TASKS`."""
    targets: tuple[str, ...]
    """What is looked for. Land cover in the order of `earthmap.tasks.vocabulary.TARGETS`, or, for the vision-language
    model, any labels in the order in which they were named; may be empty where the task does not need them."""
    sensors: tuple[str, ...] = ()
    """Ids of the sensors that may answer; empty for any."""
    unseen: tuple[str, ...] = DEFAULT_UNSEEN
    """Reasons of the reason mask that count as unseen."""
    before: str | None = None
    """STAC datetime or interval that the first date of a change query is taken from; None for the earliest. Of a flood
    what tells the water that is always there."""
    after: str | None = None
    """The same for the second date; None for the latest. Of a question about one date that date."""
    choices: tuple[str, ...] = ()
    """What the answer is one of; for a task of labels the labels that are asked for, each by itself."""
    shape: str | None = None
    """Kind of `earthmap.tasks.serialization.KINDS` that a spatial reply has; None for a reply that is not spatial."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise QueryError(f"{self.task!r} is not a task", expected=f"one of {', '.join(TASKS)}")

    @property
    def dates(self) -> int:
        """How many dates one answer looks at: 1, 2, or 0 for a series of any number from two on."""
        return TASKS[self.task].dates

    @property
    def is_flood(self) -> bool:
        """Whether it asks for water that is not there otherwise: a map of `flood` and of nothing else."""
        return self.task == "segment" and self.targets == (FLOOD,)

    @property
    def is_followed(self) -> bool:
        """Single things are followed through time."""
        return TASKS[self.task].answer == "tracks"

    def content_key(self) -> str:
        """Key of the question with all that it asks for."""
        return content_key(self)


_REASONS = REASONS[1:]
"""What can hide the ground: every reason but `clear`."""


def _plain_text(text: str) -> str:
    """`text` without outer spaces. Raises QueryError where nobody could have meant it as a question."""
    stripped = text.strip()
    if not stripped:
        raise QueryError("the question is empty", expected="a question", fix="ask such as 'Where is water?'")
    if len(stripped) > MAX_TEXT:
        raise QueryError(f"the question has {len(stripped)} characters", expected=f"at most {MAX_TEXT}")
    odd = _control_character(stripped)
    if odd is not None:
        raise QueryError(
            f"the question has the control character U+{ord(odd):04X}", expected="one line of plain text", fix="drop it"
        )
    return stripped


def _control_character(text: str) -> str | None:
    return next((mark for mark in text if unicodedata.category(mark) in ("Cc", "Cs", "Zl", "Zp")), None)


def _unseen(unseen: Iterable[str] | None) -> tuple[str, ...]:
    if unseen is None:
        return DEFAULT_UNSEEN
    names = tuple(dict.fromkeys([unseen] if isinstance(unseen, str) else unseen))
    unknown = [name for name in names if name not in _REASONS]
    if unknown:
        raise QueryError(f"{unknown[0]!r} is no reason for unseen ground", expected=f"some of {', '.join(_REASONS)}")
    return names if "nodata" in names else ("nodata", *names)


# ── open vocabulary ──────────────────────────────────────────────────────────────────────────────────────────


def _labels(targets: Iterable[str]) -> tuple[str, ...]:
    """Targets of any kind as they are written in answers. Raises QueryError for one that says nothing."""
    names = [targets] if isinstance(targets, str) else list(targets)
    found = [plain_label(str(name)[:MAX_TEXT]) for name in names]
    if None in found or not found:
        which = repr(str(names[found.index(None)])[:80]) if found else "nothing"
        raise QueryError(f"{which} is given as a target", expected="names of things, such as ship or solar panel")
    labels = tuple(dict.fromkeys(label for label in found if label))
    if len(labels) > MAX_TARGETS:
        raise QueryError(f"{len(labels)} targets are given", expected=f"at most {MAX_TARGETS}", fix="ask several times")
    return labels


def _open_targets(text: str, task: Task, targets: Iterable[str] | None) -> tuple[str, ...]:
    """The targets of an open-vocabulary question: given, or named in its words."""
    if targets is not None:
        return _labels(targets)
    found = tuple(dict.fromkeys(label for name in targets_in(text, task.id) if (label := plain_label(name))))
    if task.needs_targets and not found:
        raise QueryError(
            f"the question does not say plainly what a {task.id} is asked of",
            expected="the names of things, such as in 'Where is water?'",
            fix="name them in the targets",
        )
    return found[:MAX_TARGETS]


def _checked_choices(choices: Iterable[str], task: Task) -> tuple[str, ...]:
    """Choices that can be told apart. Raises QueryError."""
    texts = [choices] if isinstance(choices, str) else list(choices)
    plain = [" ".join(text.split()) if isinstance(text, str) else "" for text in texts]
    odd = next((text for text in plain if not text or ";" in text or len(text) > MAX_CHOICE), None)
    odd = odd if odd is not None else next((text for text in plain if _control_character(text)), None)
    if odd is not None:
        raise QueryError(
            f"{odd[:80]!r} is given as a choice", expected=f"plain text of 1 to {MAX_CHOICE} characters without ';'"
        )
    if len({text.casefold() for text in plain}) < len(plain):
        raise QueryError("a choice is given twice", expected="choices that differ", fix="leave one of them out")
    fewest = 1 if task.answer == "labels" else 2
    if not fewest <= len(plain) <= MAX_CHOICES:
        raise QueryError(
            f"{len(plain)} choices are given to a {task.id} question", expected=f"{fewest} to {MAX_CHOICES}"
        )
    return tuple(plain)


def _open_choices(text: str, task: Task, choices: Iterable[str] | None) -> tuple[str, ...]:
    """The choices of an open-vocabulary question: given, named in its words, or those of its task."""
    if not task.chooses:
        if choices is not None:
            raise QueryError(
                f"choices are given to a {task.id} question",
                expected=f"a task of {', '.join(row.id for row in TASKS.values() if row.chooses)}",
                fix="leave the choices out, or name such a task",
            )
        return ()
    named = choices_in(text) if choices is None else choices
    if not named and choices is None:
        named = task.choices
    return _checked_choices(named, task)


def _shape(shape: str | None, task: Task, *, named: str | None) -> str | None:
    """The shape that is given, else the one that the question names, else the task's own."""
    if shape is None:
        return named if named in task.shapes else next(iter(task.shapes), None)
    if shape not in task.shapes:
        raise QueryError(
            f"a {task.id} question cannot be answered with the shape {shape!r}",
            expected=f"one of {', '.join(task.shapes)}" if task.shapes else "no shape: its answer is not spatial",
        )
    return shape


def _task(text: str, task: str | None, *, choices: Iterable[str] | None, open_vocabulary: bool) -> Task:
    """The row of a question. Raises QueryError."""
    if task is None:
        return TASKS[guess_task(text, open_vocabulary, with_choices=choices is not None)]
    known = tuple(TASKS) if open_vocabulary else PLAIN_TASKS
    if task in known:
        return TASKS[task]
    if task in TASKS:
        raise QueryError(
            f"the task {task!r} cannot be asked of land cover",
            expected=f"one of {examples(known)}",
            fix="other tasks need the vision-language model",
        )
    raise QueryError(f"{task!r} is not a task", expected=f"one of {examples(known)}")


def _targets(text: str, row: Task, targets: Iterable[str] | None, *, open_vocabulary: bool) -> tuple[str, ...]:
    """What is looked for: given, or named in the words; of a vector nothing. Raises QueryError."""
    if row.is_vector:
        if targets is not None:
            raise QueryError(
                f"targets are given to {row.id}, which looks for nothing", expected="none", fix="leave them out"
            )
        return ()
    if open_vocabulary:
        return _open_targets(text, row, targets)
    return land_cover_in(text, row.id) if targets is None else land_cover_of(targets)


def _asks_for_flood(text: str, row: Task, targets: Iterable[str] | None, *, dated: bool) -> bool:
    """Whether a map of flood is wanted: its target is named so, or its words say so and its dates are given."""
    if row.id not in ("segment", "fraction", "presence"):
        return False
    if targets is not None:
        return [simplified(str(name)) for name in ([targets] if isinstance(targets, str) else targets)] == [FLOOD]
    return dated and names_flood(simplified(text))


def make_query(
    text: str,
    *,
    task: str | None = None,
    targets: Iterable[str] | None = None,
    choices: Iterable[str] | None = None,
    shape: str | None = None,
    sensors: Iterable[str] = (),
    before: str | None = None,
    after: str | None = None,
    unseen: Iterable[str] | None = None,
    open_vocabulary: bool = False,
) -> Query:
    """The exact query behind a question.

    Args:
        text: The question, one line of at most MAX_TEXT characters.
        task: Id of the task; None to guess it from the words.
        targets: What is looked for; None to find it in the words. Without `open_vocabulary` targets of
            `earthmap.tasks.vocabulary.TARGETS` or synonyms of them, and "What changed?" means all.
        choices: What the answer is one of, or which labels are asked for; None for what the words or the task name.
        shape: Kind of shape of a spatial reply; None for what the words or the task name.
        sensors: Ids of the sensors that may answer; empty for any.
        before: STAC datetime or interval of a change query's first date, or of what tells permanent water from flood.
        after: The same for its second date, and for the date of a question about one.
        unseen: Reasons of the reason mask that count as unseen; None for `DEFAULT_UNSEEN`. `nodata` always counts.
        open_vocabulary: The question goes to the vision-language model, so that it may be of any task about anything.

    Raises:
        QueryError: for text that is no question, a task that is not plain or unknown, and what the task cannot have;
            without `open_vocabulary` also for what land cover cannot answer.

    Example:
        >>> make_query("How much of the valley is flooded?").targets
        ('water',)
        >>> make_query("How many ships are there?", open_vocabulary=True).targets
        ('ship',)
    """
    question = _plain_text(text)
    row = TASKS.get(task or "")
    if targets is None and not open_vocabulary and not (row is not None and row.is_vector):
        refuse_beyond_land_cover(question)
    row = _task(question, task, choices=choices, open_vocabulary=open_vocabulary)
    flood = _asks_for_flood(question, row, targets, dated=before is not None or after is not None)
    row, targets = (TASKS["segment"], None) if flood else (row, targets)
    if row.dates == 1 and before is not None and not flood:
        raise QueryError(
            f"a {row.id} question looks at one date, yet one before it is named",
            expected="--task change, or a question about flood",
            fix="drop the date before",
        )
    return Query(
        text=question,
        task=row.id,
        targets=(FLOOD,) if flood else _targets(question, row, targets, open_vocabulary=open_vocabulary),
        sensors=(sensors,) if isinstance(sensors, str) else tuple(sensors),
        unseen=_unseen(unseen),
        before=before,
        after=after,
        choices=_open_choices(question, row, choices),
        shape=_shape(shape, row, named=shape_in(question) if open_vocabulary else None),
    )


def beyond_land_cover(query: Query) -> str | None:
    """Why a query cannot be answered from land cover alone, as rules and drawn truths know it; None where it can."""
    if query.task not in LAND_COVER_TASKS:
        return f"a {query.task} question needs the vision-language model"
    beyond = [target for target in query.targets if target not in TARGETS]
    if beyond or not query.targets:
        what = ", ".join(beyond) if beyond else "no land cover"
        return f"the question names {what}; expected some of {', '.join(TARGETS)}, or the vision-language model"
    return None


def mask_legend(query: Query) -> dict[int, str]:
    """What the codes of the query's masks mean, without 0 and 255; empty for a task without masks.

    Segment: one code for each target in the query's order. Change: two, gained before lost.

    Example:
        >>> mask_legend(make_query("Where did water appear?"))
        {1: 'water gained', 2: 'water lost'}
    """
    if query.task == "segment":
        names = list(query.targets)
        if query.is_flood:
            names.append(PERMANENT)
    elif query.task == "change":
        names = [f"{target} {way}" for target in query.targets for way in ("gained", "lost")]
    else:
        names = []
    return dict(enumerate(names, start=1))
