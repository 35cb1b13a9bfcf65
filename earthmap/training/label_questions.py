"""True questions about labelled ground, in the words of the predictor, as drawn tiles are asked about."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.synthetic.questions import ABSENT, MOST_THINGS, PRESENT
from earthmap.synthetic.replies import CORNERS, cover_text
from earthmap.tasks import TASKS, Query, closed_choices, label_questions, make_query, question_prompt
from earthmap.tasks.prompts import YES_NO
from earthmap.tasks.quantization import simplify
from earthmap.tasks.serialization import Instance, serialize
from earthmap.training.rows import Asked

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

LEAD = 0.15
"""By how much of the ground a class must lead to be what covers a place."""

OUTLINED = 0.12
"""How often ground is asked for as outlines instead of masks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing in a picture, in its coordinates: 0 to 1, x to the right, y down."""

    outline: BaseGeometry
    """What of it lies inside the picture."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What labels say of one picture."""

    names: tuple[str, ...]
    """Of the classes."""
    often: tuple[float, ...]
    """Share of all tiles that show each."""
    masks: NDArray[np.bool_] = field(repr=False)
    """(class, y, x) True where it is, and is seen."""
    seen: NDArray[np.bool_] = field(repr=False)
    """(y, x) True where it is known what is there."""
    things: Mapping[str, tuple[Thing, ...] | None]
    """Of each class of things whose number is known; None where one of them cannot be told."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """(class,) share of what is seen."""
        found: NDArray[np.float64] = self.masks.sum(axis=(1, 2)) / self.seen.sum()
        return found


def ask_ground(ground: Ground, dice: random.Random) -> list[Asked]:
    """What can be asked of a picture with its true answers, each class in fair shares of presence and absence."""
    asked = [
        *_presences(ground, dice),
        *_labels(ground, dice),
        *_dominant(ground, dice),
        *_segments(ground, dice),
        *_found(ground, dice),
    ]
    return list(dict.fromkeys(asked))


def _is_fair(often: float, *, there: bool, dice: random.Random) -> bool:
    """True as often as makes presence and absence of a class equally likely answers (`earthmap.synthetic.questions`).

    A class that is everywhere, or nowhere, is asked about as it is.
    """
    if not 0.0 < often < 1.0:
        return True
    odds = often / (1.0 - often)
    return dice.random() < (1.0 / odds if there else odds)


def _told(ground: Ground, dice: random.Random) -> Iterator[tuple[str, bool]]:
    """Classes of which it is plain whether they are there, in fair shares."""
    for name, often, share in zip(ground.names, ground.often, ground.shares.tolist(), strict=True):
        is_thing = bool(ground.things.get(name))
        if (is_thing or not ABSENT < share < PRESENT) and _is_fair(often, there=share > 0, dice=dice):
            yield name, share > 0


def _asked(query: Query, answer: str, dice: random.Random) -> Asked:
    choices = closed_choices(query)
    choices = choices[::-1] if dice.random() < 0.5 else choices
    return Asked(
        question=question_prompt(query, choices=choices or None),
        answer=answer,
        category=TASKS[query.task].category,
        spatial=query.shape is not None,
        choices=choices,
        task=query.task,
    )


def _presences(ground: Ground, dice: random.Random) -> Iterator[Asked]:
    for name, there in _told(ground, dice):
        text = dice.choice(("Is there any {0}?", "Can {0} be seen here?", "Does this picture show {0}?")).format(name)
        query = make_query(text, task="presence", targets=[name], open_vocabulary=True)
        yield _asked(query, "yes" if there else "no", dice)


def _labels(ground: Ground, dice: random.Random) -> Iterator[Asked]:
    text = dice.choice(("Which of these are there?", "Which of these can be seen?"))
    query = make_query(text, task="label", choices=ground.names, open_vocabulary=True)
    questions = dict(zip(query.choices, label_questions(query), strict=True))
    for name, there in _told(ground, dice):
        yield Asked(
            question=questions[name],
            answer="yes" if there else "no",
            category=TASKS[query.task].category,
            choices=YES_NO,
            task=query.task,
        )


def _dominant(ground: Ground, dice: random.Random) -> Iterator[Asked]:
    """What covers most of the ground, among some of the classes that are named."""
    order = np.argsort(-ground.shares, kind="stable").tolist()
    shares = ground.shares[order]
    if len(order) < 2 or shares[0] < 0.4 or shares[0] - shares[1] < LEAD:
        return
    best, others = ground.names[order[0]], [ground.names[code] for code in order[1:]]
    choices = [best, *dice.sample(others, min(len(others), dice.randint(1, 7)))]
    dice.shuffle(choices)
    texts = ("What covers this place?", "Which class is this?", "Which of these covers the most ground?")
    task = "choose" if dice.random() < 0.4 else "classify"
    yield _asked(make_query(dice.choice(texts), task=task, choices=choices, open_vocabulary=True), best, dice)


def _segments(ground: Ground, dice: random.Random) -> Iterator[Asked]:
    """Ground of one class as a mask or outline, `none` where there is none."""
    for name, mask in zip(ground.names, ground.masks, strict=True):
        share = float(mask.sum() / ground.seen.sum())
        often = ground.often[ground.names.index(name)]
        if ABSENT < share < PRESENT or not _is_fair(often, there=share > 0, dice=dice):
            continue
        kind = "polygon" if dice.random() < OUTLINED else "mask"
        answer = cover_text([(name, mask.astype(np.float32))], kind)
        if answer is not None:
            text = dice.choice(("Where is {0}?", "Outline {0}.", "Map {0}.", "Segment {0}.")).format(name)
            query = make_query(text, task="segment", targets=[name], shape=kind, open_vocabulary=True)
            yield _asked(query, answer, dice)


def _found(ground: Ground, dice: random.Random) -> Iterator[Asked]:
    """All things of a class, or how many, or where the only one is."""
    for name, things in ground.things.items():
        often = ground.often[ground.names.index(name)]
        if things is None or len(things) > MOST_THINGS or not _is_fair(often, there=bool(things), dice=dice):
            continue
        for task, texts in (
            ("detect", ("Find each {0}.", "Detect every {0}.", "Show every {0}.")),
            ("count", ("How many times is there a {0}?", "Count every {0}.")),
        ):
            kind = dice.choice(TASKS[task].shapes)
            text = dice.choice(texts).format(name)
            query = make_query(text, task=task, targets=[name], shape=kind, open_vocabulary=True)
            yield _asked(query, serialize(_instance(thing, kind, name) for thing in things), dice)
        if len(things) == 1:
            kind = dice.choice(TASKS["ground"].shapes)
            text = dice.choice(("Where is the {0}?", "Locate the {0}.")).format(name)
            query = make_query(text, task="ground", targets=[name], shape=kind, open_vocabulary=True)
            yield _asked(query, serialize([_instance(things[0], kind, name)]), dice)


def _instance(thing: Thing, kind: str, name: str) -> Instance:
    geometry = thing.outline
    if kind == "polygon":
        geometry = simplify(geometry, corners=CORNERS).geometry
    elif kind == "box":
        geometry = shapely.box(*thing.box)
    return Instance(kind=kind, geometry=geometry, label=name)
