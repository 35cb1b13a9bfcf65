"""What can be asked, as a table: the nine task categories, each with one row or more.

Names follow the field; those of the Earth-OneVision paper (Cai et al., arXiv 2606.10819) are not public.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from earthmap.tasks.damage import GRADES
from earthmap.tasks.vocabulary import CHANGES, TARGETS

CATEGORIES = ("classify", "label", "vqa", "caption", "ground", "detect", "segment", "change", "track")
"""The field's words for kinds of questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kind of question."""

    id: str
    category: str
    """One of CATEGORIES."""
    answer: str
    """What comes back for a tile: `yes/no`, `share` (of the seen ground), `choice`, `labels`, `text`, `instances`,
    `count`, `mask`, `tracks` or `vector`."""
    dates: int
    """How many dates one answer looks at: 1, 2, or 0 for a series or video of any number from two on."""
    merge: str
    """`tiles` (answers stay tile squares), `polygons` (masks are joined across seams) or `instances` (things are found
    again across seams, one to one)."""
    scoring: str
    """What makes the probability of a written answer: `choices` (log-probabilities, normalised over the choices),
    `independent` (yes or no of each label by itself), `tokens` (geometric mean over the answer's tokens), `pixels`
    (the number is measured on the ground, from masks or blocks of the picture) or `nothing` (there is no probability of
    a vector)."""
    template: str
    """The words that the model is given, one thought a line, with the places `{text}`, `{targets}`, `{choices}` and
    `{shape}`; a line whose place stays empty is left out (`earthmap.tasks.prompts`). Empty where the model is asked
    nothing, because the answer is what it sees."""
    example: str
    """A question that is plainly of this kind."""
    shapes: tuple[str, ...] = ()
    """Kinds of `earthmap.tasks.serialization.KINDS` that the reply may have, the first where none is asked for."""
    choices: tuple[str, ...] = ()
    """What may be chosen where the question names nothing."""

    @property
    def chooses(self) -> bool:
        """A query of this kind has choices: one of them, or several labels, are the answer."""
        return self.answer in ("choice", "labels")

    @property
    def needs_targets(self) -> bool:
        """A query of this kind names what is looked for, because its numbers or codes are of that."""
        return self.answer in ("share", "mask")

    @property
    def is_vector(self) -> bool:
        """A query of this kind names nothing, and has a vector for its answer, which is compared with others."""
        return self.answer == "vector"


_ROWS = (
    Task(
        id="presence",
        category="vqa",
        answer="yes/no",
        dates=1,
        merge="tiles",
        scoring="choices",
        template="{text}\nReply with one of: {choices}.",
        example="Is there any water?",
    ),
    Task(
        id="fraction",
        category="vqa",
        answer="share",
        dates=1,
        merge="tiles",
        scoring="pixels",
        shapes=("mask", "polygon"),
        template="{text}\nTargets: {targets}.\nReply with {shape} for each, or none.",
        example="How much of the valley is under water?",
    ),
    Task(
        id="vqa",
        category="vqa",
        answer="text",
        dates=1,
        merge="tiles",
        scoring="tokens",
        template="{text}\nReply in a few words.",
        example="What are the ships in the harbour doing?",
    ),
    Task(
        id="choose",
        category="vqa",
        answer="choice",
        dates=1,
        merge="tiles",
        scoring="choices",
        template="{text}\nReply with one of: {choices}.",
        example="Is this a harbour, an airport or a farm?",
    ),
    Task(
        id="classify",
        category="classify",
        answer="choice",
        dates=1,
        merge="tiles",
        scoring="choices",
        template="{text}\nReply with what fits the whole picture best: {choices}.",
        example="What kind of land cover is this?",
        choices=TARGETS,
    ),
    Task(
        id="embed",
        category="classify",
        answer="vector",
        dates=1,
        merge="tiles",
        scoring="nothing",
        template="",
        example="Embed this area.",
    ),
    Task(
        id="label",
        category="label",
        answer="labels",
        dates=1,
        merge="tiles",
        scoring="independent",
        template="{text}\nIs there any: {targets}?\nReply with one of: {choices}.",
        example="Which land cover classes are there?",
        choices=TARGETS,
    ),
    Task(
        id="caption",
        category="caption",
        answer="text",
        dates=1,
        merge="tiles",
        scoring="tokens",
        template="{text}\nReply in a sentence or two.",
        example="Describe this place.",
    ),
    Task(
        id="ground",
        category="ground",
        answer="instances",
        dates=1,
        merge="instances",
        scoring="tokens",
        shapes=("box", "oriented_box", "point"),
        template="{text}\nReply with {shape} for what is meant.",
        example="Where is the largest ship?",
    ),
    Task(
        id="detect",
        category="detect",
        answer="instances",
        dates=1,
        merge="instances",
        scoring="tokens",
        shapes=("box", "oriented_box", "point", "polygon"),
        template="{text}\nTargets: {targets}.\nReply with {shape} for each one, or none.",
        example="Find the ships.",
    ),
    Task(
        id="count",
        category="detect",
        answer="count",
        dates=1,
        merge="instances",
        scoring="tokens",
        shapes=("box", "oriented_box", "point", "polygon"),
        template="{text}\nTargets: {targets}.\nReply with {shape} for each one, or none.",
        example="How many ships are there?",
    ),
    Task(
        id="segment",
        category="segment",
        answer="mask",
        dates=1,
        merge="polygons",
        scoring="tokens",
        shapes=("mask", "polygon"),
        template="{text}\nTargets: {targets}.\nReply with {shape} for each, or none.",
        example="Where is water?",
    ),
    Task(
        id="change",
        category="change",
        answer="mask",
        dates=2,
        merge="polygons",
        scoring="tokens",
        shapes=("mask", "polygon"),
        template="{text}\nTargets: {targets}.\nReply with {shape} for what was gained and what was lost, or none.",
        example="What changed since May?",
    ),
    Task(
        id="change-type",
        category="change",
        answer="choice",
        dates=2,
        merge="tiles",
        scoring="choices",
        template="{text}\nReply with what happened between the dates: {choices}.",
        example="What kind of change is this?",
        choices=CHANGES,
    ),
    Task(
        id="damage",
        category="change",
        answer="choice",
        dates=2,
        merge="footprints",
        scoring="choices",
        template="{text}\nReply with what happened between the dates: {choices}.",
        example="Which buildings are damaged?",
        choices=GRADES,
    ),
    Task(
        id="change-caption",
        category="change",
        answer="text",
        dates=2,
        merge="tiles",
        scoring="tokens",
        template="{text}\nReply with what changed between the dates.",
        example="Describe what changed.",
    ),
    Task(
        id="series",
        category="change",
        answer="text",
        dates=0,
        merge="tiles",
        scoring="tokens",
        template="{text}\nReply with what changed along the series.",
        example="How did the town develop over the years?",
    ),
    Task(
        id="track",
        category="track",
        answer="tracks",
        dates=0,
        merge="instances",
        scoring="tokens",
        shapes=("box", "oriented_box", "point", "polygon"),
        template="{text}\nTargets: {targets}.\nReply with {shape} for each one at each time, or none.",
        example="Track the ships.",
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.id: task for task in _ROWS})
"""Tasks by id."""

LAND_COVER_TASKS = ("presence", "fraction", "segment", "change")
"""Tasks that can be asked without the vision-language model, of the land cover in TARGETS."""

PLAIN_TASKS = (*LAND_COVER_TASKS, "embed")
"""All tasks that can be asked without the vision-language model."""
