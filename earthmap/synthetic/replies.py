"""What a model should write: facts of a drawn tile as text in the words of `earthmap.tasks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.facts import CELLS, Facts, Thing, direction_of
from earthmap.synthetic.objects import OBJECT_CLASSES
from earthmap.synthetic.truth import BUILT_UP, CLASSES, VEGETATION, WATER
from earthmap.tasks.quantization import simplify
from earthmap.tasks.serialization import Instance, serialize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

MASK_SIDE = 16
"""Cells along one side of a mask that is written."""

CORNERS = 24
"""Corners of an outline that is written, at most."""

_LOST = 0.03
"""Share of the tile by which ground that is written may differ from what is there."""

CANNOT_BE_SEEN, TOO_COARSE = "cannot be seen", "too coarse to tell"
"""What is said of what clouds hide, and of what is smaller than a pixel."""

NAMES = {
    "water": "water",
    "vegetation": "vegetation",
    "bare": "bare ground",
    "built-up": "built-up land",
    "snow": "snow",
    "burnt": "burnt land",
}
"""Land cover in a sentence."""


def plural(label: str) -> str:
    """The word for several things of a class."""
    return label if label == "aircraft" else f"{label}s"


def counted(number: int, label: str) -> str:
    """A number of things in words that `captions` use.

    Example:
        >>> counted(1, "ship"), counted(3, "aircraft")
        ('1 ship', '3 aircraft')
    """
    return f"{number} {label if number == 1 else plural(label)}"


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────


def shape_of(thing: Thing, kind: str) -> BaseGeometry:
    """A thing as a shape of `earthmap.tasks.serialization.KINDS`, in tile coordinates."""
    import shapely

    if kind == "point":
        return shapely.Point(thing.middle)
    if kind == "box":
        return shapely.box(*thing.box)
    return shapely.Polygon(thing.oriented_box if kind == "oriented_box" else thing.outline)


def things_text(things: Iterable[Thing], kind: str, *, label: str | None = None) -> str:
    """The things in the order given; `none` for none."""
    return serialize(
        Instance(kind=kind, geometry=shape_of(thing, kind), label=label or thing.label) for thing in things
    )


def coarse_cells(cells: NDArray[np.float32], side: int = MASK_SIDE) -> NDArray[np.bool_]:
    """(side, side) True where the class fills half of a cell or more."""
    return np.asarray(_blocks(cells, side) >= 0.5)


def outline_of(mask: NDArray[np.bool_]) -> BaseGeometry:
    """The ground of a mask's cells as polygons of few corners, in tile coordinates."""
    import shapely

    side = len(mask)
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[1]
    whole = shapely.union_all(shapely.box(first / side, rows / side, last / side, (rows + 1) / side))
    smooth = shapely.simplify(whole, 0.71 / side, preserve_topology=True)
    few = shapely.get_num_coordinates(smooth) <= CORNERS
    return smooth if few else simplify(smooth, corners=CORNERS).geometry


def cover_text(parts: Sequence[tuple[str, NDArray[np.float32]]], kind: str) -> str | None:
    """Masks or outlines of labelled ground, `none` where there is none; None where the text would lose much of it."""
    found = []
    for label, cells in parts:
        mask = coarse_cells(cells)
        share = float(cells.mean())
        outline = outline_of(mask) if kind == "polygon" and mask.any() else None
        written = float(mask.mean()) if outline is None else outline.area
        if abs(written - share) > _LOST or (share > 0 and not mask.any()):
            return None
        if outline is not None:
            found.append(Instance(kind=kind, geometry=outline, label=label))
        elif mask.any():
            found.append(Instance(kind=kind, mask=mask, label=label))
    return serialize(found)


def regions(facts: Facts, *, side: int, date: int = 0) -> list[tuple[str, NDArray[np.float32]]]:
    """Phrases with the ground that they are said of: (side, side) shares of blocks, for alignment by region.

    Land cover of a fiftieth of the tile or more with its side of the picture, and each class of things that is seen.

    Args:
        facts: The tile.
        side: Blocks along one side, a divisor of `earthmap.synthetic.facts.CELLS`.
        date: Which of its dates.
    """
    found = []
    for name in facts.classes:
        cells = facts.cells[date, CLASSES.index(name)]
        if cells.mean() >= 0.02:
            where = direction_of(cells)
            found.append((f"{NAMES[name]} in the {where}" if where else NAMES[name], _blocks(cells, side)))
    for label in facts.labels:
        things = [thing for thing in facts.of(label, date) if thing.seen]
        if things and facts.tellable(label):
            found.append((counted(len(things), label), _blocks(_touched(things), side)))
    return found


def _blocks(cells: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Means of cells over blocks."""
    step = len(cells) // side
    means: NDArray[np.float32] = cells.reshape(side, step, side, step).mean(axis=(1, 3))
    return means


def _touched(things: Iterable[Thing]) -> NDArray[np.float32]:
    """(CELLS, CELLS) 1 where a cell meets the box of a thing."""
    cells = np.zeros((CELLS, CELLS), np.float32)
    for thing in things:
        left, top, right, bottom = (value * CELLS for value in thing.box)
        cells[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = 1.0
    return cells


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────


def caption(facts: Facts, date: int = 0) -> str:
    """A sentence or two of which every clause is true."""
    if facts.seen[date] < 0.05:
        return "Hardly any of the ground can be seen."
    clauses = [_main_clause(facts, date), *_thing_clauses(facts, date)]
    if facts.river > 0.008 and date == 0 and facts.seen[date] > 0.95:
        clauses.append("A river crosses it.")
    if facts.seen[date] < 0.9:
        clauses.append(f"About {round((1.0 - facts.seen[date]) * 10) * 10}% of it is hidden.")
    return " ".join(clauses)


def is_sayable(facts: Facts, date: int = 0) -> bool:
    """True where the sensors can tell all the land cover that a caption names."""
    named = np.argsort(-facts.shares[date], kind="stable")[:2]
    return all(CLASSES[code] in facts.classes or facts.shares[date][code] < 0.04 for code in named)


def _main_clause(facts: Facts, date: int) -> str:
    shares = facts.shares[date]
    first, second = (int(code) for code in np.argsort(-shares, kind="stable")[:2])
    name, other = NAMES[CLASSES[first]], NAMES[CLASSES[second]]
    if shares[first] < 0.5:
        return f"Mostly {name} and {other}."
    if shares[second] < 0.04:
        return f"Mostly {name}."
    side = direction_of(facts.cells[date, second])
    return f"Mostly {name}, with {other} in the {side}." if side else f"Mostly {name}, with some {other}."


def _thing_clauses(facts: Facts, date: int) -> list[str]:
    clauses = []
    for label in OBJECT_CLASSES:
        things = facts.of(label, date) if facts.tellable(label) else []
        if things and all(thing.seen for thing in things):
            clauses.append(f"There {'is' if len(things) == 1 else 'are'} {counted(len(things), label)}.")
    return clauses


_GAINS = {
    "flooding": (WATER, 0),
    "drying": (WATER, 1),
    "vegetation growth": (VEGETATION, 0),
    "vegetation loss": (VEGETATION, 1),
    "landslide": (VEGETATION, 1),
    "construction": (BUILT_UP, 0),
    "demolition": (BUILT_UP, 1),
    "fire": (6, 0),
    "snowfall": (5, 0),
    "snowmelt": (5, 1),
}
"""The class whose gain (0) or loss (1) an event shows as."""


def buildings_struck(facts: Facts) -> list[Thing]:
    """Buildings that came, went or were damaged between the first and the last date, as they were where they stood."""
    first = {thing.slot: thing for thing in facts.of("building", 0)}
    last = {thing.slot: thing for thing in facts.of("building", facts.dates - 1)}
    if facts.event == "building damage":
        return [thing for thing in last.values() if thing.grade]
    gone = [thing for slot, thing in first.items() if slot not in last]
    return gone + [thing for slot, thing in last.items() if slot not in first]


def changed_share(facts: Facts) -> float:
    """Share of the tile that an event was seen to change, by the class that it shows as."""
    if facts.event not in _GAINS:
        return 0.0
    code, way = _GAINS[facts.event]
    return float(facts.changed[code - 1, way].mean())


def is_plain(facts: Facts) -> bool:
    """True where what happened between the dates, or that nothing did, can be told from what is seen."""
    if facts.event == "no change":
        return bool(min(facts.seen[0], facts.seen[-1]) > 0.6)
    if facts.event in _GAINS and CLASSES[_GAINS[facts.event][0] - 1] not in facts.classes:
        return False
    struck = [thing for thing in buildings_struck(facts) if thing.seen]
    by_things = facts.event in ("construction", "demolition", "building damage") and facts.tellable("building")
    return changed_share(facts) >= 0.015 or (by_things and bool(struck) and min(facts.seen[0], facts.seen[-1]) > 0.6)


def change_caption(facts: Facts) -> str:
    """What changed, in a sentence whose every clause is true; of a tile whose change `is_plain`."""
    if facts.event == "no change":
        return "Nothing changed."
    share = changed_share(facts)
    parts = []
    if share >= 0.015:
        code, way = _GAINS[facts.event]
        side = direction_of(facts.changed[code - 1, way])
        where = f", mostly in the {side}" if side else ""
        verb = "lost" if way else "gained"
        parts.append(f"{NAMES[CLASSES[code - 1]]} {verb} {max(1, round(share * 100))}% of the picture{where}")
    struck = buildings_struck(facts)
    if facts.event in _OF_BUILDINGS and struck and facts.tellable("building") and all(thing.seen for thing in struck):
        parts.append(f"{counted(len(struck), 'building')} {_OF_BUILDINGS[facts.event]}")
    return f"{facts.event.capitalize()}: {'; '.join(parts)}." if parts else f"{facts.event.capitalize()}."


_OF_BUILDINGS = {"construction": "built", "demolition": "gone", "building damage": "damaged"}


def series_text(facts: Facts) -> str:
    """What changed along a series, and from which picture on."""
    if facts.event == "no change":
        return "Nothing changed."
    return f"From picture {facts.since + 1} on. {change_caption(facts)}"


def tracks_text(facts: Facts, label: str, kind: str) -> str:
    """The things of a class at each second, things numbered from the top down where they are first seen."""
    order: dict[int, int] = {}
    for date in range(facts.dates):
        for thing in facts.of(label, date):
            order.setdefault(thing.slot, len(order) + 1)
    states = [
        Instance(kind=kind, geometry=shape_of(thing, kind), label=label, time=f"{date}s", track=order[thing.slot])
        for date in range(facts.dates)
        for thing in facts.of(label, date)
    ]
    return serialize(sorted(states, key=lambda state: (state.track or 0, int((state.time or "0s")[:-1]))))
