"""Continuous fields and random draws as functions of ground position, bit for bit the same on every lattice.

Only additions, multiplications, floors and table look-ups are used: a sine may differ in its last bit with the place
of a number in an array, and then two overlapping scenes would not agree.
"""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TABLE = 256
"""Lattice points along one side of a field's table; a field repeats after so many wavelengths."""


def hash64(*parts: NDArray[Any] | int) -> NDArray[np.uint64]:
    """Well mixed 64-bit numbers of the broadcast shape of `parts` (whole numbers), one for each combination.

    The finaliser of SplitMix64 (Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators),
    applied after each part.
    """
    mixed = np.full(np.broadcast_shapes(*(np.shape(part) for part in parts)) or (1,), 0x9E3779B97F4A7C15, np.uint64)
    for part in parts:
        mixed = mixed ^ np.asarray(part, np.int64).astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


def uniform(hashed: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Hashes as float32 in [0, 1), of the same shape."""
    return (hashed >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


@functools.lru_cache(maxsize=256)
def draw_table(seed: int, name: str) -> NDArray[np.float32]:
    """(256, 256) draws in [0, 1) that belong to `name` in the world of `seed`; read-only."""
    side = np.arange(_TABLE)
    table = uniform(hash64(seed, zlib.crc32(name.encode()), side[:, None], side[None, :]))
    table.setflags(write=False)
    return table


def look_up(seed: int, name: str, column: NDArray[Any], row: NDArray[Any]) -> NDArray[np.float32]:
    """The draw of lattice cell (row, column), whole numbers of any size, in [0, 1)."""
    index = (row.astype(np.int64) & (_TABLE - 1)) * _TABLE + (column.astype(np.int64) & (_TABLE - 1))
    return draw_table(seed, name).ravel().take(index)


def _split(position: NDArray[np.float64], wavelength_m: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The lattice point below each position and the smoothed way from it to the next, 0 to 1."""
    steps = position / wavelength_m
    below = np.floor(steps)
    way = (steps - below).astype(np.float32)
    return below.astype(np.int64) & (_TABLE - 1), way * way * (np.float32(3) - np.float32(2) * way)


def noise(
    seed: int, name: str, x: NDArray[np.float64], y: NDArray[np.float64], *, wavelength_m: float
) -> NDArray[np.float32]:
    """A smooth field in [0, 1) (value noise) at `x`, `y` in metres; float32 of their broadcast shape.

    A row of x with a column of y is evaluated along its axes, several times faster and to the same bits.
    """
    table = draw_table(seed, name)
    column, right = _split(x, wavelength_m)
    row, up = _split(y, wavelength_m)
    next_column, next_row = (column + 1) & (_TABLE - 1), (row + 1) & (_TABLE - 1)
    left, down = np.float32(1) - right, np.float32(1) - up
    if x.ndim == y.ndim == 2 and x.shape[0] == 1 and y.shape[1] == 1:
        used, place = np.unique(np.concatenate([row[:, 0], next_row[:, 0]]), return_inverse=True)
        lines = table[used[:, None], column] * left + table[used[:, None], next_column] * right
        result: NDArray[np.float32] = lines[place[: row.size]] * down + lines[place[row.size :]] * up
        return result
    flat, low, high = table.ravel(), row * _TABLE, next_row * _TABLE
    lower = flat.take(low + column) * left + flat.take(low + next_column) * right
    upper = flat.take(high + column) * left + flat.take(high + next_column) * right
    field: NDArray[np.float32] = lower * down + upper * up
    return field


def fractal(
    seed: int,
    name: str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    wavelength_m: float,
    octaves: int,
) -> NDArray[np.float32]:
    """`octaves` noises, each half as wide and half as strong as the one before, weighted into [0, 1)."""
    total = noise(seed, f"{name}0", x, y, wavelength_m=wavelength_m)
    for octave in range(1, octaves):
        finer = noise(seed, f"{name}{octave}", x, y, wavelength_m=wavelength_m / 2.0**octave)
        total = total + finer * np.float32(0.5**octave)
    return total * np.float32(1.0 / (2.0 - 0.5 ** (octaves - 1)))


def noise_along(seed: int, name: str, position: NDArray[np.float64], *, wavelength_m: float) -> NDArray[np.float64]:
    """A smooth line in [0, 1) at `position` in metres; float64 of the same shape."""
    draws = draw_table(seed, name)[0].astype(np.float64)
    below, way = _split(position, wavelength_m)
    line: NDArray[np.float64] = draws[below] * (1.0 - way) + draws[(below + 1) & (_TABLE - 1)] * way
    return line


def ramp(value: NDArray[Any], start: float, end: float) -> NDArray[np.float32]:
    """0 below `start`, 1 above `end`, a smooth step between; float32."""
    way = np.clip((value - start) / (end - start), 0.0, 1.0).astype(np.float32)
    return way * way * (np.float32(3) - np.float32(2) * way)
