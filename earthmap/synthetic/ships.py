"""Ships on a drawn world's water: oriented rectangles, one at most for each place of a lattice, where one fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earthmap.synthetic.fields import look_up

if TYPE_CHECKING:
    from collections.abc import Callable

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
