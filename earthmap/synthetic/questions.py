"""True questions and answers about drawn tiles, for all task categories, as inference asks them.

Each maker looks at the facts of a tile and gives one question with its answer, or None where the tile has nothing to
ask. What may be there or not is asked for as often where it is as where it is not, and in the same words, so that no
question tells its own answer; of land cover, rather what it could be taken for is asked for where it is not.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from earthmap.synthetic.facts import Facts, Thing, direction, direction_of
from earthmap.synthetic.objects import OBJECT_CLASSES
from earthmap.synthetic.recipes import EVENTS
from earthmap.synthetic.replies import (
    CANNOT_BE_SEEN,
    NAMES,
    TOO_COARSE,
    buildings_struck,
    caption,
    change_caption,
    cover_text,
    is_plain,
    is_sayable,
    plural,
    series_text,
    shape_of,
    things_text,
    tracks_text,
)
from earthmap.synthetic.truth import CLASSES
from earthmap.tasks.damage import FOOTPRINT_KINDS, GRADES, damage_question, footprint_phrase
from earthmap.tasks.query import Query, make_query
from earthmap.tasks.registry import CATEGORIES, TASKS

PRESENT, ABSENT = 0.004, 0.0
"""Share of the seen ground from which land cover is there, and up to which it is not; between, nothing is asked."""

MOST_THINGS = 12
"""Things in an answer at most: a longer one is not asked for."""

MOST_STATES = 24
"""The same for the states of tracks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question about a drawn tile, and its true answer."""

    query: Query
    answer: str
    """What a model should write: a choice, SLIS, or text; for labels those that are there, joined by "; ", or none."""
    labels: tuple[tuple[str, bool], ...] = ()
    """Of a question of labels each with whether it is there."""
    answerable: bool = True
    """False where the right answer is that it cannot be told."""

    @property
    def category(self) -> str:
        """Row of `earthmap.tasks.registry.CATEGORIES`."""
        return TASKS[self.query.task].category

    @property
    def sense(self) -> object:
        """Equal for two questions that ask the same in other words."""
        query = self.query
        about = query.text if query.task in ("vqa", "ground", "choose", "series") else ""
        return query.task, query.targets, frozenset(query.choices), query.shape, about


_MOST = {"caption": 1, "change-caption": 1, "classify": 2, "label": 2, "ground": 2, "change-type": 3}
"""Questions of a task to one tile at most, where not just as many as there are."""


class Dice(random.Random):
    """Draws for one tile."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self._decided: dict[tuple[str, str], bool] = {}

    def decides(self, what: str, name: str, *, chance: float) -> bool:
        """True with this chance, decided once: what is tried again and again would be asked in the end, fair or not."""
        if (what, name) not in self._decided:
            self._decided[what, name] = self.random() < chance
        return self._decided[what, name]


Maker = Callable[[Facts, Dice], "Asked | None"]


def ask(facts: Facts, *, count: int = 12, seed: int = 0, mixture: Mapping[str, float] | None = None) -> list[Asked]:
    """At most `count` different questions about a tile with their answers, all true.

    Args:
        facts: The tile. A picture is asked about itself, a pair and a series about change, a video about tracks.
        count: Questions wanted; a tile with little to ask gives fewer.
        seed: Another seed asks other things about the same tile.
        mixture: Weight of each category of `earthmap.tasks.registry.CATEGORIES`; None for all alike.
    """
    dice = Dice(f"{facts.seed}/{seed}/{','.join(facts.sensors)}")
    makers = _makers(facts)
    weights = {name: (mixture or {}).get(name, 0.0 if mixture else 1.0) for name in CATEGORIES}
    names = [name for name in makers if weights[name] > 0]
    found: dict[object, Asked] = {}
    times: Counter[str] = Counter()
    for _ in range(4 * count if names else 0):
        category = dice.choices(names, [weights[name] for name in names])[0]
        asked = dice.choice(makers[category])(facts, dice)
        if asked is None or asked.sense in found or times[asked.query.task] == _MOST.get(asked.query.task):
            continue
        found[asked.sense] = asked
        times[asked.query.task] += 1
        if len(found) == count:
            break
    return list(found.values())


def _makers(facts: Facts) -> Mapping[str, tuple[Maker, ...]]:
    if facts.moving:
        return {"track": (_track,)}
    if facts.dates == 1:
        return _ONE_DATE
    return {"change": _PAIR if facts.dates == 2 else (_series, _series_start, _series_event)}


@functools.lru_cache(maxsize=4096)
def _plain_query(text: str, task: str, targets: tuple[str, ...], shape: str | None) -> Query:
    """A query whose choices, if it has some, are still to come."""
    choices = ("yes", "no") if TASKS[task].chooses else None
    return make_query(text, task=task, targets=targets or None, choices=choices, shape=shape, open_vocabulary=True)


def _query(
    text: str, task: str, targets: tuple[str, ...] = (), choices: tuple[str, ...] = (), shape: str | None = None
) -> Query:
    """The query that `earthmap.tasks.query.make_query` makes of the same, in less time."""
    return replace(_plain_query(text, task, targets, shape), choices=choices)


def _asked(query: Query, answer: str, *, answerable: bool = True) -> Asked:
    return Asked(query=query, answer=answer, answerable=answerable)


# ── is it there ──────────────────────────────────────────────────────────────────────────────────────────────

_LIKE = {
    "water": ("burnt", "built-up"),
    "vegetation": ("water", "bare"),
    "bare": ("built-up", "burnt"),
    "built-up": ("bare", "snow"),
    "snow": ("bare", "built-up"),
    "burnt": ("water", "bare"),
}
"""What each class is taken for."""


_Shares = float | tuple[float, float, float]

_SEEN: Mapping[str, _Shares] = {
    "water": 0.44,
    "vegetation": 0.84,
    "bare": 0.55,
    "built-up": 0.56,
    "snow": 0.11,
    "burnt": 0.11,
    "building": (0.42, 0.30, 0.18),
    "ship": (0.16, 0.17, 0.13),
    "storage tank": (0.04, 0.10, 0.075),
    "aircraft": (0.045, 0.03, 0.03),
    "vehicle": 0.20,
}
"""Share of drawn tiles that show each, where it can be told: below 3 m of ground distance, below 12 m, and from there
on. Measured on 4,800 tiles of all sensors."""

_LISTED = {**_SEEN, "building": (0.33, 0.10, 0.06)}
"""The same of tiles that show no more than MOST_THINGS."""

_CHANGED = {"water": 0.18, "vegetation": 0.51, "bare": 0.30, "built-up": 0.22, "snow": 0.10, "burnt": 0.12, "": 0.41}
"""Share of pairs and series that gain or lose each, or anything."""

_FOLLOWED: Mapping[str, _Shares] = {"ship": (0.17, 0.27, 0.03), "vehicle": 0.15}
"""Share of videos that show each."""


def chance(often: _Shares, *, there: bool, gsd_m: float) -> float:
    """How often to ask where something is, and where it is not, so that both are equally likely among the questions.

    Otherwise its name alone would tell the answer: of burnt ground that it is hardly ever there.
    """
    share = often if isinstance(often, float) else often[(gsd_m >= 3.0) + (gsd_m >= 12.0)]
    odds = share / (1.0 - share)
    return min(1.0, 1.0 / odds if there else odds)


def is_fair(name: str, *, there: bool, gsd_m: float, dice: random.Random) -> bool:
    """True as often as makes "it is there" and "it is not" equally likely answers to questions about `name`."""
    return dice.random() < chance(_SEEN[name], there=there, gsd_m=gsd_m)


def _cover_presence(facts: Facts, dice: Dice) -> Asked | None:
    if facts.seen[0] < 0.3:
        return None
    there = [name for name in facts.classes if facts.share(name) >= PRESENT]
    sure = [name for name in facts.classes if not ABSENT < facts.share(name) < PRESENT]
    if not sure:
        return None
    # What is not there is asked for rather where something is that it is taken for.
    weights = [1.0 if name in there else 0.6 + 0.6 * any(like in there for like in _LIKE[name]) for name in sure]
    name = dice.choices(sure, weights)[0]
    wanted = name in there
    if not dice.decides("presence", name, chance=chance(_SEEN[name], there=wanted, gsd_m=facts.gsd_m)):
        return None
    texts = ("Is there any {0}?", "Can {0} be seen here?", "Does this picture show {0}?", "Is there {0} in this place?")
    query = _query(dice.choice(texts).format(NAMES[name]), "presence", (name,))
    return _asked(query, "yes" if wanted else "no")


def known_things(facts: Facts) -> list[str]:
    """Classes of things of which it is known how many are seen: those that can be told, with none half hidden.

    None where clouds could hide one: were such a picture asked about what it does show alone, clouds would mean "yes".
    """
    return countable(facts) if facts.seen[0] >= 0.85 else []


def countable(facts: Facts) -> list[str]:
    """Classes of things that can be told, with none half hidden."""
    return [label for label in OBJECT_CLASSES if facts.tellable(label) and all(thing.seen for thing in facts.of(label))]


def _known_thing(facts: Facts, dice: Dice, what: str, often: Mapping[str, _Shares]) -> str | None:
    """A class of things of which it is known how many are seen, none as often as some."""
    told = known_things(facts)
    label = dice.choice(told) if told else None
    if label is None:
        return None
    odds = chance(often[label], there=bool(facts.of(label)), gsd_m=facts.gsd_m)
    return label if dice.decides(what, label, chance=odds) else None


def _thing_presence(facts: Facts, dice: Dice) -> Asked | None:
    label = _known_thing(facts, dice, "presence", _SEEN)
    if label is None:
        return None
    wanted = bool(facts.of(label))
    texts = ("Are there any {0}?", "Can {0} be seen here?", "Does this picture show {0}?")
    return _asked(_query(dice.choice(texts).format(plural(label)), "presence", (label,)), "yes" if wanted else "no")


def _labels(facts: Facts, dice: Dice) -> Asked | None:
    if facts.seen[0] < 0.3:
        return None
    if dice.random() < 0.7:
        sure = [name for name in facts.classes if not ABSENT < facts.share(name) < PRESENT]
        there = {name: facts.share(name) >= PRESENT for name in sure}
        text = dice.choice(("Which land cover classes are there?", "What land cover can be seen?"))
    else:
        there = {label: bool(facts.of(label)) for label in known_things(facts)}
        text = dice.choice(("Which of these things are there?", "Which of these can be seen?"))
    if len(there) < 2:
        return None
    found = [name for name, is_there in there.items() if is_there]
    query = _query(text, "label", (), tuple(there))
    return Asked(query=query, answer="; ".join(found) if found else "none", labels=tuple(there.items()))


# ── which ────────────────────────────────────────────────────────────────────────────────────────────────────


def dominant(facts: Facts, lead: float = 0.15) -> str | None:
    """The class that covers clearly more than any other; None without one."""
    order = np.argsort(-facts.shares[0], kind="stable")
    shares = facts.shares[0][order]
    is_plain = facts.seen[0] >= 0.3 and shares[0] >= 0.4 and shares[0] - shares[1] >= lead
    name = CLASSES[int(order[0])]
    return name if is_plain and name in facts.classes else None


def _classify(facts: Facts, dice: Dice) -> Asked | None:
    name = dominant(facts)
    texts = ("What kind of land cover is this?", "Which land cover class is this?", "What covers this place?")
    return None if name is None else _asked(_query(dice.choice(texts), "classify", (), facts.classes), name)


def _places(facts: Facts) -> list[str]:
    """What the place may be called, as the facts have it; a name that does not fit what is seen is left out."""
    share = {name: facts.share(name) for name in CLASSES}
    checks = {
        "open sea": facts.kind == "sea" and share["water"] > 0.98,
        "coast": facts.kind == "coast" and 0.1 < share["water"] < 0.9,
        "town": facts.kind == "town" and share["built-up"] > 0.3,
        "airport": bool([thing for thing in facts.of("aircraft") if thing.seen]),
        "forest": facts.kind == "forest" and share["vegetation"] > 0.6,
        "desert": facts.kind == "desert" and share["bare"] > 0.8,
        "snow field": facts.kind == "snow field" and share["snow"] > 0.5,
        "farmland": facts.kind == "countryside" and share["vegetation"] + share["bare"] > 0.85,
    }
    told = len(facts.classes) == len(CLASSES) and facts.seen[0] > 0.7
    return [name for name, fits in checks.items() if fits and told]


_PLACES = ("open sea", "coast", "town", "airport", "forest", "desert", "snow field", "farmland")


def _place(facts: Facts, dice: Dice) -> Asked | None:
    mine = _places(facts)
    if len(mine) != 1:
        return None
    others = dice.sample([name for name in _PLACES if name != mine[0]], dice.randint(2, 5))
    choices = [*others, mine[0]]
    dice.shuffle(choices)
    texts = ("What kind of place is this?", "Which of these is it?", "What does this picture show?")
    return _asked(_query(dice.choice(texts), "classify", (), tuple(choices)), mine[0])


def _larger(facts: Facts, dice: Dice) -> Asked | None:
    if facts.seen[0] < 0.3:
        return None
    names = dice.sample(facts.classes, min(len(facts.classes), dice.randint(2, 4)))
    shares = sorted(((facts.share(name), name) for name in names), reverse=True)
    if shares[0][0] - shares[1][0] < 0.08:
        return None
    return _asked(_query("Which of these covers the most ground?", "choose", (), tuple(names)), shares[0][1])


def _what_covers(facts: Facts, dice: Dice) -> Asked | None:
    name = dominant(facts)
    texts = ("What covers most of the ground?", "What is most of this place?", "What is on the ground here?")
    return None if name is None else _asked(_query(dice.choice(texts), "vqa"), NAMES[name])


def _which_side(facts: Facts, dice: Dice) -> Asked | None:
    name = dice.choice(facts.classes)
    number = CLASSES.index(name)
    side = direction_of(facts.cells[0, number])
    if side is None or facts.shares[0][number] < 0.03 or facts.seen[0] < 0.9:
        return None
    return _asked(_query(f"In which part of the picture is most of the {NAMES[name]}?", "vqa"), f"the {side}")


def _hidden(facts: Facts, dice: Dice) -> Asked | None:
    """What nobody could answer: under cloud, or smaller than a pixel."""
    if facts.seen[0] < 0.1:
        text = dice.choice(("What is on the ground here?", "What covers most of the ground?"))
        return _asked(_query(text, "vqa"), CANNOT_BE_SEEN, answerable=False)
    fine = [label for label in ("vehicle", "aircraft", "building") if facts.gsd_m > 2 * _LIMITS_M[label]]
    if not fine or not dice.decides("hidden", "", chance=0.15):  # such pictures are many, and all have one answer
        return None
    return _asked(_number_query(dice.choice(fine)), TOO_COARSE, answerable=False)


def _number_query(label: str) -> Query:
    return _query(f"How many {plural(label)} are in the picture?", "vqa")


def _number(facts: Facts, dice: Dice) -> Asked | None:
    """A number in words, where there is one to tell."""
    label = _known_thing(facts, dice, "number", _LISTED)
    if label is None or len(facts.of(label)) > MOST_THINGS:
        return None
    return _asked(_number_query(label), str(len(facts.of(label))))


_LIMITS_M = {"vehicle": 1.5, "aircraft": 15.0, "building": 45.0}


def _caption(facts: Facts, dice: Dice) -> Asked | None:
    if not is_sayable(facts):
        return None
    texts = ("Describe this place.", "Describe the picture.", "What can be seen here?", "Write a caption.")
    return _asked(_query(dice.choice(texts), "caption"), caption(facts))


# ── where ────────────────────────────────────────────────────────────────────────────────────────────────────


_WORDS: Mapping[str, Callable[[Thing], float]] = {
    "largest": lambda thing: -thing.area,
    "smallest": lambda thing: thing.area,
    "northernmost": lambda thing: thing.middle[1],
    "southernmost": lambda thing: -thing.middle[1],
    "westernmost": lambda thing: thing.middle[0],
    "easternmost": lambda thing: -thing.middle[0],
}
"""Words for one thing among several: the one that comes first by this number."""


def _outstanding(things: Sequence[Thing], dice: Dice) -> tuple[str, Thing] | None:
    """A phrase that fits one thing alone, and that thing."""
    label = things[0].label
    if len(things) == 1:
        return f"the {label}", things[0]
    for word in dice.sample(list(_WORDS), len(_WORDS)):
        first, second = sorted(things, key=_WORDS[word])[:2]
        if word in ("largest", "smallest"):
            is_clear = max(first.area, second.area) > 1.25 * min(first.area, second.area)
        else:
            is_clear = _WORDS[word](second) - _WORDS[word](first) > 0.04
        if is_clear:
            return f"the {word} {label}", first
    return None


def _ground(facts: Facts, dice: Dice) -> Asked | None:
    """One thing by its phrase; what is not there is asked for by the same phrases."""
    label = _known_thing(facts, dice, "ground", _SEEN)
    if label is None:
        return None
    things = facts.of(label)
    named = _outstanding(things, dice) if things else None
    if things and named is None:
        return None
    phrase = named[0] if named else dice.choice([f"the {label}", f"the {dice.choice(list(_WORDS))} {label}"])
    text = dice.choice(("Where is {0}?", "Find {0}.", "Locate {0}.", "Point to {0}.")).format(phrase)
    kind = dice.choice(TASKS["ground"].shapes)
    return _asked(_query(text, "ground", (label,), (), kind), things_text([named[1]] if named else [], kind))


def _found(facts: Facts, dice: Dice, task: str, texts: tuple[str, ...]) -> Asked | None:
    """All things of a class, or that there are none."""
    label = _known_thing(facts, dice, "list", _LISTED)
    if label is None or len(facts.of(label)) > MOST_THINGS:
        return None
    kind = dice.choice(TASKS[task].shapes)
    query = _query(dice.choice(texts).format(plural(label)), task, (label,), (), kind)
    return _asked(query, things_text(facts.of(label), kind))


def _detect(facts: Facts, dice: Dice) -> Asked | None:
    return _found(facts, dice, "detect", ("Find the {0}.", "Detect all {0}.", "Show every one of the {0}."))


def _count(facts: Facts, dice: Dice) -> Asked | None:
    return _found(facts, dice, "count", ("How many {0} are there?", "Count the {0}.", "What is the number of {0}?"))


def _covered(facts: Facts, dice: Dice, task: str, texts: tuple[str, ...]) -> Asked | None:
    """Ground of one class or two, as masks or outlines; of a class that is not there `none`."""
    if facts.seen[0] < 0.3:
        return None
    names = sorted(dice.sample(facts.classes, 1 if task == "fraction" or dice.random() < 0.7 else 2), key=CLASSES.index)
    kind = "polygon" if dice.random() < 0.12 else "mask"
    parts = [(name, facts.cells[0, CLASSES.index(name)]) for name in names]
    shares = [facts.share(name) for name in names]
    if any(ABSENT < share < PRESENT for share in shares):
        return None
    odds = chance(_SEEN[names[0]], there=shares[0] > 0, gsd_m=facts.gsd_m)
    if len(names) == 1 and not dice.decides(task, names[0], chance=odds):
        return None
    text = dice.choice(texts).format(" and ".join(NAMES[name] for name in names))
    answer = cover_text(parts, kind)
    return None if answer is None else _asked(_query(text, task, tuple(names), (), kind), answer)


def _fraction(facts: Facts, dice: Dice) -> Asked | None:
    return _covered(facts, dice, "fraction", ("How much of the ground is {0}?", "What share of this place is {0}?"))


def _segment(facts: Facts, dice: Dice) -> Asked | None:
    return _covered(facts, dice, "segment", ("Where is {0}?", "Outline {0}.", "Map {0}.", "Segment {0}."))


# ── change and time ──────────────────────────────────────────────────────────────────────────────────────────


def _change(facts: Facts, dice: Dice) -> Asked | None:
    """Where what was gained and lost; with nothing that changed `none`."""
    if min(facts.seen[0], facts.seen[-1]) < 0.3:
        return None
    kind = "polygon" if dice.random() < 0.1 else "mask"
    names = facts.classes if dice.random() < 0.4 else (dice.choice(facts.classes),)
    parts = [
        (f"{name} {way}", facts.changed[CLASSES.index(name), index])
        for name in names
        for index, way in enumerate(("gained", "lost"))
    ]
    about = names[0] if len(names) == 1 else ""
    odds = chance(_CHANGED[about], there=any(cells.any() for _, cells in parts), gsd_m=facts.gsd_m)
    if not dice.decides("change", about, chance=odds):
        return None
    texts = ("What changed?", "Show the changes.") if len(names) > 1 else ("Where did {0} appear or disappear?",)
    text = dice.choice(texts).format(NAMES[names[0]])
    answer = cover_text(parts, kind)
    return None if answer is None else _asked(_query(text, "change", tuple(names), (), kind), answer)


def _change_type(facts: Facts, dice: Dice) -> Asked | None:
    if not is_plain(facts):
        return None
    others = [name for name in EVENTS if name != facts.event]
    choices = [*dice.sample(others, dice.randint(2, 6)), facts.event]
    dice.shuffle(choices)
    texts = ("What kind of change is this?", "What happened here?", "What happened between the dates?")
    return _asked(_query(dice.choice(texts), "change-type", (), tuple(choices)), facts.event)


def _change_caption(facts: Facts, dice: Dice) -> Asked | None:
    if not is_plain(facts):
        return None
    texts = ("Describe what changed.", "What is different in the second picture?", "Describe the change.")
    return _asked(_query(dice.choice(texts), "change-caption"), change_caption(facts))


def _struck_buildings(facts: Facts, dice: Dice) -> Asked | None:
    """The type of change again, asked of buildings alone."""
    struck = [thing for thing in buildings_struck(facts) if thing.seen]
    if not facts.tellable("building") or not is_plain(facts) or (facts.event != "no change") != bool(struck):
        return None
    choices = ["no change", "construction", "demolition", "building damage"]
    dice.shuffle(choices)
    # Places where nothing changed are seven times as many.
    if facts.event not in choices or not dice.decides("struck", "", chance=1.0 if struck else 0.14):
        return None
    return _asked(_query("What happened to the buildings?", "change-type", (), tuple(choices)), facts.event)


def _damage(facts: Facts, dice: Dice) -> Asked | None:
    """How badly one building was damaged; of places where none was, few are asked about."""
    buildings = [thing for thing in facts.of("building", facts.dates - 1) if thing.seen]
    struck = facts.event == "building damage"
    if not buildings or not facts.tellable("building") or min(facts.seen[0], facts.seen[-1]) < 0.6:
        return None
    named = _outstanding(buildings, dice)
    if named is None or not dice.decides("damage", "", chance=1.0 if struck else 0.04):
        return None
    return _asked(_query(damage_question(named[0]), "change-type", (), GRADES), GRADES[named[1].grade])


def _graded(facts: Facts, dice: Dice) -> Asked | None:
    """How badly the building of a footprint was damaged: the same, of a building named by where it is."""
    buildings = [thing for thing in facts.of("building", facts.dates - 1) if thing.seen]
    struck = facts.event == "building damage"
    if not buildings or not facts.tellable("building") or min(facts.seen[0], facts.seen[-1]) < 0.6:
        return None
    if not dice.decides("graded", "", chance=1.0 if struck else 0.04):
        return None
    thing = dice.choice(buildings)
    kind = dice.choice(FOOTPRINT_KINDS)
    text = damage_question(footprint_phrase(shape_of(thing, kind), kind))
    return _asked(_query(text, "damage", (), GRADES), GRADES[thing.grade])


def _series(facts: Facts, dice: Dice) -> Asked | None:
    if not is_plain(facts) or min(facts.seen) < 0.6:
        return None
    texts = (
        "How did this place develop?",
        "What changed along the series?",
        "Describe how the place changed over time.",
    )
    return _asked(_query(dice.choice(texts), "series"), series_text(facts))


def _series_start(facts: Facts, dice: Dice) -> Asked | None:
    if not is_plain(facts) or min(facts.seen) < 0.6:
        return None
    texts = ("From which picture on is something different?", "When did the change begin?")
    answer = "nothing changed" if facts.event == "no change" else f"picture {facts.since + 1}"
    return _asked(_query(dice.choice(texts), "series"), answer)


def _series_event(facts: Facts, dice: Dice) -> Asked | None:
    if not is_plain(facts) or min(facts.seen) < 0.6:
        return None
    return _asked(
        _query(dice.choice(("What happened in the series?", "What kind of change is it?")), "series"), facts.event
    )


def _track(facts: Facts, dice: Dice) -> Asked | None:
    label = dice.choice(("ship", "vehicle"))
    states = [thing for date in range(facts.dates) for thing in facts.of(label, date)]
    if not facts.tellable(label) or len(states) > MOST_STATES or not all(thing.seen for thing in states):
        return None
    odds = chance(_FOLLOWED[label], there=bool(states), gsd_m=facts.gsd_m)
    if not dice.decides("track", label, chance=odds):
        return None
    kind = dice.choice(TASKS["track"].shapes[:3])
    texts = ("Track the {0}.", "Follow all {0}.", "Where do the {0} go?")
    query = _query(dice.choice(texts).format(plural(label)), "track", (label,), (), kind)
    return _asked(query, tracks_text(facts, label, kind))


def _thing_side(facts: Facts, dice: Dice) -> Asked | None:
    labels = [label for label in countable(facts) if len(facts.of(label)) == 1]
    if not labels:
        return None
    thing = facts.of(dice.choice(labels))[0]
    side = direction(thing.middle[0] - 0.5, thing.middle[1] - 0.5)
    answer = f"the {side}" if side else "the middle"
    return _asked(_query(f"In which part of the picture is the {thing.label}?", "vqa"), answer)


_ONE_DATE: Mapping[str, tuple[Maker, ...]] = {
    "classify": (_classify, _place),
    "label": (_labels,),
    "vqa": (
        *(_cover_presence, _cover_presence, _thing_presence, _fraction, _fraction, _larger),
        *(_what_covers, _which_side, _thing_side, _number, _hidden),
    ),
    "caption": (_caption,),
    "ground": (_ground,),
    "detect": (_detect, _count),
    "segment": (_segment,),
}
_PAIR: tuple[Maker, ...] = (
    *(_change, _change, _change_type, _change_type, _change_caption, _struck_buildings, _damage, _graded),
)  # fmt: skip
