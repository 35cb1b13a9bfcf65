"""What a question's words say where it must be about land cover: its task and its targets, or why it is refused.

Without the vision-language model a question that is not plain, or not about land cover alone, is refused with what
would be understood. With it every question is understood as something (`earthmap.tasks.open_questions`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from earthmap.errors import QueryError
from earthmap.tasks.open_questions import ASKS_A_VECTOR, guess_open_task
from earthmap.tasks.registry import PLAIN_TASKS, TASKS
from earthmap.tasks.vocabulary import SYNONYMS, TARGETS, land_cover_words, simplified

_NEEDS_MODEL = re.compile(
    r"\b(how many|number of|count|ships?|boats?|vessels?|cars?|vehicles?|trucks?|planes?|aircraft|airplanes?|airports?"
    r"|people|persons?|animals?|cattle|roads?|bridges?|railways?|ports?|harbou?rs?|clouds?|smoke|oil|mines?|dams?"
    r"|solar|wind turbines?|turbines?|tanks?|damaged?|destroyed|destruction|collapsed|debris|why|who|describe|caption"
    r"|species|kinds?|types?)\b"
)
_NEGATION = re.compile(r"\b(no|not|without|except|excluding|isn't|aren't|wasn't|weren't|never|nor)\b")

# In this order: "how much water was lost" asks for a change, "is there any change" too.
_LAND_COVER_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "change",
        re.compile(
            r"\b(chang(e|es|ed|ing)|differen(t|ce|ces)|(dis)?appear(s|ed)?|vanish(ed)?|lost|loss|losses|gain(s|ed)?"
            r"|grew|grown|growth|shrank|shrunk|shrinking|expand(ed)?|expansion|reced(e|ed|ing)|retreat(ed)?"
            r"|increased?|decreased?|since|before and after|deforestation)\b|\bbetween\b.*\band\b"
        ),
    ),
    ("fraction", re.compile(r"\b(how much|what (share|fraction|percentage|proportion)|share of|percentage|percent)\b")),
    ("presence", re.compile(r"^(is|are|was|were|does|do|did|has|have|can)\b")),
    (
        "segment",
        re.compile(
            r"^(where|map|show|segment|outline|delineate|extract|find|mark|mask|draw|locate|detect)\b"
            r"|\b(which|what) (areas?|parts?|ground|land|places)\b"
            r"|^(what|which)\b.*\b(is|are|was|were|lies?) (under|covered|flooded|inundated|submerged|burnt|burned)\b"
        ),
    ),
)

# "What changed?", "Were there any changes since May?": a question about everything that can be told apart.
_ANY_CHANGE = re.compile(
    r"^(what|where|how)( has| have| had| was| is| are| were)?( been)?( it| things| the (area|land|ground|valley))?"
    r" (chang(e|ed|es)|different|(dis)?appeared)\b"
    r"|^(is|are|was|were|did|has|have)( there)?( any| anything| something| it)? ?chang(e|ed|es)\b"
    r"|^(map|show|find|detect|mark|locate|list)( me)?( the| any| all)? (changes?|differences?)\b|^changes?\b"
)


def examples(tasks: Iterable[str]) -> str:
    """The tasks with an example each, for a message."""
    return ", ".join(f"{task} ({TASKS[task].example!r})" for task in tasks)


def guess_task(text: str, open_vocabulary: bool = False, *, with_choices: bool = False) -> str:
    """The id of the task that a question plainly asks for.

    Args:
        text: The question.
        open_vocabulary: It goes to the vision-language model: any task, `vqa` where none is plain.
        with_choices: Choices are given beside it.

    Raises:
        QueryError: where it is not plain, without `open_vocabulary`.

    Example:
        >>> guess_task("What is under water?")
        'segment'
        >>> guess_task("How many ships are there?", open_vocabulary=True)
        'count'
    """
    if open_vocabulary:
        return guess_open_task(text, with_choices=with_choices)
    simple = simplified(text)
    if ASKS_A_VECTOR.search(simple):
        return "embed"
    for task, pattern in _LAND_COVER_PATTERNS:
        if pattern.search(simple):
            return task
    raise QueryError(
        "the question does not say plainly what kind of answer it wants",
        expected=f"one of {examples(PLAIN_TASKS)}",
        fix="ask in such words, or name the task with --task",
    )


def _answerable() -> str:
    return f"a question about {', '.join(TARGETS[:-1])} or {TARGETS[-1]}, which this version's predictors can answer"


def refuse_beyond_land_cover(text: str) -> None:
    """Raises QueryError for a question that land cover cannot answer, whatever else it names."""
    simple = simplified(text)
    beyond = _NEEDS_MODEL.search(simple)
    if beyond:
        raise QueryError(
            f"{beyond[0]!r} cannot be answered",
            expected=_answerable(),
            fix="ask for one of these; other questions need the vision-language model",
        )
    if _NEGATION.search(simple.removesuffix(" or not")):
        raise QueryError(
            "the question asks where something is not, which is not understood",
            expected="a question about what is there",
            fix="ask for the target itself; the mask's code 0 is what is left",
        )


def land_cover_in(text: str, task: str) -> tuple[str, ...]:
    """The land cover that a question names, in the order of TARGETS. Raises QueryError where it names none."""
    simple = simplified(text)
    found = {SYNONYMS[match] for match in land_cover_words(simple)}
    if not found and task == "change" and _ANY_CHANGE.search(simple):
        return TARGETS
    if not found:
        raise QueryError(
            "the question names nothing that can be answered",
            expected=_answerable(),
            fix="name one of these; other targets need the vision-language model",
        )
    return tuple(target for target in TARGETS if target in found)


def land_cover_of(targets: Iterable[str]) -> tuple[str, ...]:
    """Given names or synonyms of land cover as targets, in the order of TARGETS. Raises QueryError for others."""
    names = [targets] if isinstance(targets, str) else list(targets)
    found = set()
    for name in names:
        simple = simplified(str(name))
        target = simple if simple in TARGETS else SYNONYMS.get(simple)
        if target is None:
            raise QueryError(
                f"{str(name)[:80]!r} is not a target",
                expected=f"some of {', '.join(TARGETS)}",
                fix="other targets need the vision-language model",
            )
        found.add(target)
    if not found:
        raise QueryError("no target is given", expected=f"some of {', '.join(TARGETS)}")
    return tuple(target for target in TARGETS if target in found)
