"""What stands on a drawn world: its buildings and ships, each as an oriented rectangle in metres."""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.synthetic.fields import hash64, look_up, uniform
from earthmap.synthetic.ships import place_corners
from earthmap.synthetic.truth import BUILT_UP, PLOT_M, World, grades_in, ships_on, town_size_m

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STANDING = ("building", "ship")
"""What there is to find on a drawn world, by the names that questions use."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """The things of one kind; `tree` finds those near a place."""

    outlines: NDArray[np.object_]
    """Oriented rectangles, Polygons in metres of the world's CRS."""
    tree: shapely.STRtree
    numbers: NDArray[np.int64]
    """By which each is known on every date."""

    @classmethod
    def of(cls, rectangles: Floats, numbers: NDArray[np.int64] | None = None) -> Standing:
        """Those of rows as `earthmap.synthetic.ships.place_ships` gives them, numbered in order where nothing else is
        said."""
        outlines = np.empty(len(rectangles), object)
        outlines[:] = [shapely.Polygon(corners) for corners in place_corners(rectangles)]
        return cls(outlines, shapely.STRtree(outlines), np.arange(len(rectangles)) if numbers is None else numbers)


@functools.lru_cache(maxsize=64)
def standing_on(world: World, label: str, date: datetime.datetime | None = None) -> Standing:
    """The things of a kind (one of STANDING) on a drawn world; a flood leaves them standing.

    `date` is for ships that sail; None for the first one. What does not move is the same on every date.
    """
    if label == "ship":
        numbers, ships = ships_on(world, date or world.before)
        return Standing.of(ships, numbers)
    if date is not None:
        return standing_on(world, label)
    return Standing.of(np.empty((0, 6)) if world.sailing else _buildings(world))


def _buildings(world: World) -> Floats:
    """Rows of rectangles of the houses that `earthmap.synthetic.truth` draws, whole inside the world."""
    return _graded_buildings(world)[0]


def building_grades(world: World) -> NDArray[np.uint8]:
    """Grades of damage on the second date, numbers of `earthmap.tasks.damage.GRADES`, of `standing_on`'s buildings."""
    return _graded_buildings(world)[1]


@functools.lru_cache(maxsize=8)
def _graded_buildings(world: World) -> tuple[Floats, NDArray[np.uint8]]:
    west, south, east, north = world.bounds
    size, middle = town_size_m(world), np.array([(west + east) / 2.0, (south + north) / 2.0])
    reach = ((east - west) / 2.0, (north - south) / 2.0)
    column, row = (
        axis.ravel() for axis in np.meshgrid(*(np.arange(-np.ceil(r / size), np.ceil(r / size)) for r in reach))
    )
    towns = [_town(world, int(c), int(r), size) for c, r in zip(column, row, strict=True)]
    found = np.concatenate([np.empty((0, 6)), *(houses for houses, _ in towns)])
    grades = np.concatenate([np.empty(0, np.uint8), *(of_town for _, of_town in towns)])
    found[:, :2] += middle
    corners = place_corners(found)
    inside = ((corners >= (west, south)) & (corners < (east, north))).all(axis=(1, 2))
    found, grades = found[inside], grades[inside]
    ground = world.ground(found[:, 0], found[:, 1])
    kept = (ground.cover == BUILT_UP) & (ground.height_m < 0.3 * world.relief_m)
    return found[kept], grades[kept]


def _town(world: World, column: int, row: int, size: float) -> tuple[Floats, NDArray[np.uint8]]:
    """The houses of one town, x and y from the world's middle, and their grades of damage."""
    place = np.array([column]), np.array([row])
    draw = float(look_up(world.seed, "town", *place)[0])
    if draw <= 0.35:
        return np.empty((0, 6)), np.empty(0, np.uint8)
    radius = (0.09 + 0.18 * draw) * size
    centre = [
        (at + 0.3 + 0.4 * float(look_up(world.seed, f"town {axis}", *place)[0])) * size
        for at, axis in ((column, "east"), (row, "north"))
    ]
    turn = float(look_up(world.seed, "town turn", *place)[0])
    cosine, sine = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    steps = np.arange(-np.ceil(radius / PLOT_M), np.ceil(radius / PLOT_M))
    across, along = (axis.ravel() for axis in np.meshgrid(steps, steps))
    u, v = (across + 0.5) * PLOT_M, (along + 0.5) * PLOT_M
    hashed = hash64(world.seed, column * 4096 + row, across, along)
    built, wide, deep = (uniform(hashed << np.uint64(16 * number)).astype(float) for number in range(3))
    x, y = centre[0] + cosine * u - sine * v, centre[1] + sine * u + cosine * v
    shape = [np.full_like(x, cosine), np.full_like(x, sine), 10.0 + 9.0 * wide, 8.0 + 11.0 * deep]
    houses = np.column_stack([x, y, *shape])
    corners = place_corners(houses)
    edge = (u * u + v * v) / radius**2
    in_town = (np.floor(corners / size) == (column, row)).all(axis=(1, 2)) & (edge < 1.0)
    kept = in_town & (built > 0.15 + 0.6 * edge)
    town = np.full(across.shape, column * 4096 + row)
    return houses[kept], grades_in(world, town, across.astype(np.int64), along.astype(np.int64))[kept]
