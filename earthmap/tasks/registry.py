"""What can be asked: tasks and targets as tables, and the way from a question's text to an exact query."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from earthmap.errors import QueryError
from earthmap.sensors.masks import REASONS
from earthmap.tasks.query import Query

MAX_TEXT = 10_000
"""Most characters of a question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kind of question."""

    id: str
    category: str
    """The field's word for it: `vqa` (visual question answering), `segment` or `change`."""
    answer: str
    """What comes back for a tile: `yes/no`, `share` of the seen ground, or `mask`."""
    dates: int
    """How many dates one answer looks at."""
    merge: str
    """`tiles` (answers stay tile squares) or `polygons` (masks are joined across seams)."""
    example: str
    """A question that is plainly of this kind."""


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.id: task
        for task in (
            Task(
                id="presence",
                category="vqa",
                answer="yes/no",
                dates=1,
                merge="tiles",
                example="Is there any water?",
            ),
            Task(
                id="fraction",
                category="vqa",
                answer="share",
                dates=1,
                merge="tiles",
                example="How much of the valley is under water?",
            ),
            Task(
                id="segment",
                category="segment",
                answer="mask",
                dates=1,
                merge="polygons",
                example="Where is water?",
            ),
            Task(
                id="change",
                category="change",
                answer="mask",
                dates=2,
                merge="polygons",
                example="What changed since May?",
            ),
        )
    }
)
"""Tasks by id."""

TARGETS = ("water", "vegetation", "bare", "built-up", "snow", "burnt")
"""Land cover that can be asked for, in the order of a legend's codes."""

_WORDS = {
    "water": "water waters lake lakes river rivers sea seas ocean oceans pond ponds reservoir reservoirs stream streams"
    " lagoon lagoons flood floods flooded flooding floodwater inundated inundation submerged underwater",
    "vegetation": "vegetation vegetated tree trees forest forests forested wood woods woodland woodlands green greenery"
    " crop crops cropland grass grassland meadow meadows shrub shrubs plants jungle rainforest deforested"
    " deforestation",
    "bare": "bare barren soil soils sand sands dune dunes desert rock rocks bareland",
    "built-up": "built-up builtup building buildings house houses urban settlement settlements town towns city cities"
    " village villages impervious built",
    "snow": "snow snowy ice icy glacier glaciers snowfield snowfields",
    "burnt": "burnt burned burn burns scorched wildfire wildfires fire fires charred",
}
_PHRASES = {
    "under water": "water",
    "sea ice": "snow",
    "fire scar": "burnt",
    "fire scars": "burnt",
    "burn scar": "burnt",
    "burn scars": "burnt",
    "burned area": "burnt",
    "burnt area": "burnt",
    "bare ground": "bare",
    "bare soil": "bare",
    "built up": "built-up",
}
SYNONYMS: Mapping[str, str] = MappingProxyType(
    {word: target for target, words in _WORDS.items() for word in words.split()} | _PHRASES
)
"""The target behind each word or phrase that a question may use."""

_SYNONYM = re.compile(
    r"(?<![\w-])(" + "|".join(re.escape(word) for word in sorted(SYNONYMS, key=len, reverse=True)) + r")(?![\w-])"
)

_NEEDS_MODEL = re.compile(
    r"\b(how many|number of|count|ships?|boats?|vessels?|cars?|vehicles?|trucks?|planes?|aircraft|airplanes?|airports?"
    r"|people|persons?|animals?|cattle|roads?|bridges?|railways?|ports?|harbou?rs?|clouds?|smoke|oil|mines?|dams?"
    r"|solar|wind turbines?|turbines?|tanks?|damaged?|destroyed|destruction|collapsed|debris|why|who|describe|caption"
    r"|species|kinds?|types?)\b"
)
_NEGATION = re.compile(r"\b(no|not|without|except|excluding|isn't|aren't|wasn't|weren't|never|nor)\b")

# In this order: "how much water was lost" asks for a change, "is there any change" too.
_TASK_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
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

_REASONS = REASONS[1:]
"""What can hide the ground: every reason but `clear`."""


def _choices() -> str:
    return ", ".join(f"{task.id} ({task.example!r})" for task in TASKS.values())


def _plain_text(text: str) -> str:
    """`text` without outer spaces. Raises QueryError where nobody could have meant it as a question."""
    stripped = text.strip()
    if not stripped:
        raise QueryError("the question is empty", expected="a question", fix="ask such as 'Where is water?'")
    if len(stripped) > MAX_TEXT:
        raise QueryError(f"the question has {len(stripped)} characters", expected=f"at most {MAX_TEXT}")
    odd = next((mark for mark in stripped if unicodedata.category(mark) in ("Cc", "Cs", "Zl", "Zp")), None)
    if odd is not None:
        raise QueryError(
            f"the question has the control character U+{ord(odd):04X}", expected="one line of plain text", fix="drop it"
        )
    return stripped


def _simplified(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace("’", "'").split()).rstrip(" ?.!")


def guess_task(text: str) -> str:
    """The id of the task that a question plainly asks for. Raises QueryError where it is not plain.

    Example:
        >>> guess_task("What is under water?")
        'segment'
    """
    simple = _simplified(text)
    for task, pattern in _TASK_PATTERNS:
        if pattern.search(simple):
            return task
    raise QueryError(
        "the question does not say plainly what kind of answer it wants",
        expected=f"one of {_choices()}",
        fix="ask in such words, or name the task with --task",
    )


def _answerable() -> str:
    return f"a question about {', '.join(TARGETS[:-1])} or {TARGETS[-1]}, which this version's predictors can answer"


def _refuse_beyond(text: str) -> None:
    """Raises QueryError for a question that land cover cannot answer, whatever else it names."""
    simple = _simplified(text)
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


def _targets_of(text: str, task: str) -> tuple[str, ...]:
    simple = _simplified(text)
    found = {SYNONYMS[match] for match in _SYNONYM.findall(simple)}
    if not found and task == "change" and _ANY_CHANGE.search(simple):
        return TARGETS
    if not found:
        raise QueryError(
            "the question names nothing that can be answered",
            expected=_answerable(),
            fix="name one of these; other targets need the vision-language model",
        )
    return tuple(target for target in TARGETS if target in found)


def _given_targets(targets: Iterable[str]) -> tuple[str, ...]:
    names = [targets] if isinstance(targets, str) else list(targets)
    found = set()
    for name in names:
        simple = _simplified(str(name))
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


def _unseen(unseen: Iterable[str] | None) -> tuple[str, ...]:
    if unseen is None:
        return ("nodata", "cloud")
    names = tuple(dict.fromkeys([unseen] if isinstance(unseen, str) else unseen))
    unknown = [name for name in names if name not in _REASONS]
    if unknown:
        raise QueryError(f"{unknown[0]!r} is no reason for unseen ground", expected=f"some of {', '.join(_REASONS)}")
    return names if "nodata" in names else ("nodata", *names)


def make_query(
    text: str,
    *,
    task: str | None = None,
    targets: Iterable[str] | None = None,
    sensors: Iterable[str] = (),
    before: str | None = None,
    after: str | None = None,
    unseen: Iterable[str] | None = None,
) -> Query:
    """The exact query behind a question.

    Args:
        text: The question, one line of at most MAX_TEXT characters.
        task: Id of the task; None to guess it from the words.
        targets: Targets or synonyms of them; None to find them in the words. "What changed?" means all.
        sensors: Ids of the sensors that may answer; empty for any.
        before: STAC datetime or interval of a change query's first date.
        after: The same for its second date.
        unseen: Reasons of the reason mask that count as unseen; None for nodata and cloud. `nodata` always counts.

    Raises:
        QueryError: for text that is no question, a task that is not plain or unknown, and a target that the
            predictors of this version cannot answer.

    Example:
        >>> make_query("How much of the valley is flooded?").targets
        ('water',)
    """
    question = _plain_text(text)
    if targets is None:
        _refuse_beyond(question)
    if task is not None and task not in TASKS:
        raise QueryError(f"{task!r} is not a task", expected=f"one of {_choices()}")
    task = task or guess_task(question)
    if TASKS[task].dates == 1 and (before is not None or after is not None):
        raise QueryError(
            f"a {task} question looks at one date, yet two are named", expected="--task change", fix="drop the dates"
        )
    return Query(
        text=question,
        task=task,
        targets=_targets_of(question, task) if targets is None else _given_targets(targets),
        sensors=(sensors,) if isinstance(sensors, str) else tuple(sensors),
        unseen=_unseen(unseen),
        before=before,
        after=after,
    )


def mask_legend(query: Query) -> dict[int, str]:
    """What the codes of the query's masks mean, without 0 and 255; empty for a task without masks.

    Segment: one code for each target in the query's order. Change: two, gained before lost.

    Example:
        >>> mask_legend(make_query("Where did water appear?"))
        {1: 'water gained', 2: 'water lost'}
    """
    if query.task == "segment":
        names = list(query.targets)
    elif query.task == "change":
        names = [f"{target} {way}" for target in query.targets for way in ("gained", "lost")]
    else:
        names = []
    return dict(enumerate(names, start=1))
