"""Ships on a drawn world's water: oriented rectangles, one at most for each place of a lattice, where one fits.

On open sea they sail: a quarter lies still, half goes straight on, the rest turns in circles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.fields import look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_STEP_M = 240.0
_HEADINGS = np.linspace(-1.0, 1.0, 8, endpoint=False)
_LENGTHS_M = (30.0, 130.0)

CORNERS = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
"""Of a rectangle, along and across, where half the length and half the width are 1."""

_HULL = np.concatenate([CORNERS, (CORNERS + np.roll(CORNERS, 1, axis=0)) / 2, [(0.0, 0.0)]])


def place_ships(
    seed: int,
    bounds: tuple[float, float, float, float],
    *,
    share: float,
    is_water: Callable[[Floats, Floats], NDArray[np.bool_]],
) -> Floats:
    """(ship, 6): x and y of the middle in CRS metres, cosine and sine of the heading, half the length, half the width.

    Args:
        seed: Of the world.
        bounds: West, south, east, north in metres.
        share: Of the places where a ship fits, how many have one.
        is_water: Whether there is open water at points x, y.
    """
    west, south, east, north = bounds
    columns, rows = (np.arange(np.ceil(low / _STEP_M), high // _STEP_M) for low, high in ((west, east), (south, north)))
    column, row = (axis.ravel() for axis in np.meshgrid(columns, rows))
    chosen = look_up(seed, "ship", column, row) < share
    column, row = column[chosen], row[chosen]
    draws = [look_up(seed, f"ship {name}", column, row).astype(float) for name in ("east", "north", "length", "turn")]
    x, y = (column + 0.3 + 0.4 * draws[0]) * _STEP_M, (row + 0.3 + 0.4 * draws[1]) * _STEP_M
    length = _LENGTHS_M[0] + (_LENGTHS_M[1] - _LENGTHS_M[0]) * draws[2] ** 2
    found = np.column_stack([x, y, np.ones_like(x), np.zeros_like(x), length, 4.0 + 0.12 * length])
    fits = np.zeros(len(found), bool)
    for step in range(len(_HEADINGS)):
        turn = _HEADINGS[(step + np.floor(draws[3] * len(_HEADINGS)).astype(int)) % len(_HEADINGS)]
        found[~fits, 2] = ((1 - turn * turn) / (1 + turn * turn))[~fits]
        found[~fits, 3] = (2 * turn / (1 + turn * turn))[~fits]
        hull = place_corners(found, _HULL)
        fits |= is_water(hull[..., 0], hull[..., 1]).all(axis=1)
    kept: Floats = found[fits]
    return kept


def sail(ships: Floats, seconds: float, *, seed: int, fastest: float) -> Floats:
    """Where ships are after `seconds`: rows as `place_ships` gives them, in the same order.

    Args:
        ships: Where they are at first.
        seconds: May be negative: where they came from.
        seed: Of the world.
        fastest: Speed in m/s that none exceeds; those that sail make two fifths of it or more.
    """
    number, nought = np.arange(len(ships)), np.zeros(len(ships), int)
    way, pace, bend, side = (
        look_up(seed, f"ship {name}", number, nought).astype(float) for name in ("way", "pace", "bend", "side")
    )
    forward = np.where(way < 0.25, 0.0, fastest * (0.4 + 0.6 * pace)) * seconds
    radius, left = 300.0 + 700.0 * bend, np.where(side < 0.5, 1.0, -1.0)
    angle = np.where(way >= 0.75, forward / radius, 0.0)
    along = np.where(way >= 0.75, radius * np.sin(angle), forward)
    aside = np.where(way >= 0.75, left * radius * (1.0 - np.cos(angle)), 0.0)
    moved = ships.copy()
    cosine, sine = ships[:, 2], ships[:, 3]
    moved[:, 0] += cosine * along - sine * aside
    moved[:, 1] += sine * along + cosine * aside
    turn_cosine, turn_sine = np.cos(angle), left * np.sin(angle)
    moved[:, 2], moved[:, 3] = cosine * turn_cosine - sine * turn_sine, sine * turn_cosine + cosine * turn_sine
    return moved


def clear_of_others(voyages: Sequence[Floats]) -> NDArray[np.bool_]:
    """Which ships to keep so that none comes within a length of another; (ship,) bool.

    `voyages` are the rows of all ships at each of several times. Of two that meet the one behind in the order goes.
    """
    import shapely

    kept = np.ones(len(voyages[0]), bool)
    for ships in voyages:
        discs = shapely.buffer(shapely.points(ships[:, :2]), ships[:, 4] + ships[:, 5], quad_segs=4)
        one, other = shapely.STRtree(discs).query(discs, predicate="intersects")
        for first, second in sorted(zip(one[one < other].tolist(), other[one < other].tolist(), strict=True)):
            kept[second] &= not kept[first]
    return kept


def place_corners(rectangles: Floats, corners: Floats = CORNERS) -> Floats:
    """(rectangle, corner, 2) x and y in CRS metres of corners of rectangles, which are rows as `place_ships` gives."""
    x, y, cosine, sine, length, width = (column[:, None] for column in rectangles.T)
    u, v = corners[None, :, 0] * length, corners[None, :, 1] * width
    return np.stack([x + u * cosine - v * sine, y + u * sine + v * cosine], axis=-1)


def under(rectangles: Floats, x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which points lie on a ship: bool of the broadcast shape of `x` and `y`."""
    found = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    if not x.size or not y.size:
        return found
    reach = rectangles[:, 4] + rectangles[:, 5]
    near = (rectangles[:, 0] + reach >= x.min()) & (rectangles[:, 0] - reach <= x.max())
    near &= (rectangles[:, 1] + reach >= y.min()) & (rectangles[:, 1] - reach <= y.max())
    for east, north, cosine, sine, length, width in rectangles[near].tolist():
        u = cosine * (x - east) + sine * (y - north)
        v = cosine * (y - north) - sine * (x - east)
        found |= (np.abs(u) <= length) & (np.abs(v) <= width)
    return found
