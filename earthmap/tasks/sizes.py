"""How coarse pixels may be for what is looked for: what they cannot show is refused before anything is spent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from earthmap.tasks.query import Query
from earthmap.tasks.registry import TASKS

PIXELS_ACROSS = 5
"""A thing must be so many pixels long to be found as one."""

DAMAGE_M = 0.8
"""Coarsest pixel on which damage to single buildings shows: Copernicus EMS grades it on images of 0.5 m, of 0.8 m at
most."""

VEHICLE_M = 0.5
"""Coarsest pixel on which vehicles show, which are five to ten of them long."""

_DAMAGE = re.compile(r"\b(damag(e|ed|es)|destroyed|destruction|collapsed|ruin(s|ed)?|rubble)\b")

LENGTHS_M: Mapping[str, float] = MappingProxyType(
    {
        name: length
        for length, names in (
            (3.0, "person people animal cattle cow sheep"),
            (8.0, "tree pool"),
            (10.0, "boat yacht container"),
            (12.5, "building house home roof greenhouse barn"),
            (15.0, "helicopter chimney"),
            (20.0, "tank silo court helipad"),
            (30.0, "aircraft plane airplane aeroplane crane tower"),
            (40.0, "roundabout"),
            (50.0, "ship vessel tanker bridge windmill turbine"),
            (60.0, "pier stadium field pitch panel"),
            (100.0, "dam quarry"),
            (300.0, "harbour harbor port marina airport runway"),
        )
        for name in names.split()
    }
)
"""How long things of a kind commonly are, by the last word of their name; of others nobody knows."""

VEHICLES = frozenset(["vehicle", "car", "truck", "bus", "van", "lorry", "motorcycle"])


def coarsest_m(target: str, *, single: bool) -> float | None:
    """The coarsest pixel on which a target can be asked for; None where none is known.

    `single`: things are looked for one by one, not the ground that they cover together.

    Example:
        >>> coarsest_m("damaged building", single=True), coarsest_m("ships", single=True)
        (0.8, 10.0)
    """
    last = (target.lower().replace("-", " ").split() or [""])[-1]
    names = {last, last.removesuffix("s"), last.removesuffix("es")}
    if _DAMAGE.search(target.lower()):
        return DAMAGE_M
    if names & VEHICLES:
        return VEHICLE_M
    lengths = [LENGTHS_M[name] for name in names if name in LENGTHS_M] if single else []
    return max(lengths) / PIXELS_ACROSS if lengths else None


def too_coarse(query: Query, resolution_m: float) -> str | None:
    """Why pixels of this size cannot show what a query looks for, in words; None where they may."""
    single = TASKS[query.task].merge == "instances"
    for target in query.targets:
        limit = coarsest_m(target, single=single)
        if limit is not None and resolution_m > limit:
            return f"pixels of {resolution_m:g} m do not show {target}; expected {limit:g} m at most"
    return None
