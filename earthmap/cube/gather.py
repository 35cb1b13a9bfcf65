"""Pixels gathered one by one at places that a smooth mapping gives: how images without an affine transform are read.

Every pixel of the result is computed from its own place in its cell and from nothing else, so that a cell read whole,
in pieces or tile by tile has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from earthmap.cube.warp import COARSER, Block

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from earthmap.cube.control import ControlGrid

NODE_PX = 16
"""The mapping is computed at every so many target pixels and interpolated between them (off by 1e-3 pixel at most on
a swath of Sentinel-1, which a test measures)."""

Positions = tuple["NDArray[np.float64]", "NDArray[np.float64]"]
"""(column, row) in the source, corner-based."""

_Weighed = tuple["NDArray[np.float32]", "NDArray[np.float32]"]
"""Sum of values by their weights, and sum of the weights."""


def target_scale(grid: ControlGrid, frame: GeoBox) -> float:
    """Source pixels along one side of a pixel of `frame`, a geobox in metres; one number for the whole image."""
    return math.sqrt(abs(frame.affine.determinant)) / grid.spacing_m


def positions(grid: ControlGrid, frame: GeoBox, part: Block) -> Positions:
    """(column, row) of the source at the corners of nodes: see `_interpolated`. NaN where there is none."""
    from odc.geo.crs import CRS

    left, right = part.left // NODE_PX, -(-part.right // NODE_PX) + 1
    top, bottom = part.top // NODE_PX, -(-part.bottom // NODE_PX) + 1
    columns, rows = np.meshgrid(
        np.arange(left, right, dtype=np.float64) * NODE_PX, np.arange(top, bottom, dtype=np.float64) * NODE_PX
    )
    a = frame.affine
    x, y = a.a * columns + a.b * rows + a.c, a.d * columns + a.e * rows + a.f
    crs = frame.crs
    lonlat = CRS("EPSG:4326")
    lon, lat = (x, y) if crs is None or crs == lonlat else crs.transformer_to_crs(lonlat)(x, y)
    return grid.pixels(np.asarray(lon), np.asarray(lat))


def _interpolated(nodes: NDArray[np.float64], part: Block, at: tuple[float, float]) -> NDArray[np.float64]:
    """A node field at the pixels of `part`, at (down, across) inside each: bilinear, (rows, columns) of `part`."""
    rows = np.arange(part.top, part.bottom, dtype=np.float64) + at[0]
    columns = np.arange(part.left, part.right, dtype=np.float64) + at[1]
    row = np.floor(rows / NODE_PX).astype(np.int64) - part.top // NODE_PX
    column = np.floor(columns / NODE_PX).astype(np.int64) - part.left // NODE_PX
    down, across = (rows / NODE_PX % 1.0)[:, None], (columns / NODE_PX % 1.0)[None]
    upper, lower = nodes[row], nodes[row + 1]
    above = upper[:, column] * (1 - across) + upper[:, column + 1] * across
    below = lower[:, column] * (1 - across) + lower[:, column + 1] * across
    return np.asarray(above * (1 - down) + below * down)


def gather_block(nodes: Positions, *, scale: float) -> Block:
    """The source pixels that `gather` looks at; empty where it has none. It may reach beyond the image."""
    column, row = nodes
    known = np.isfinite(column) & np.isfinite(row)
    if not known.any():
        return Block(0, 0, 0, 0)
    margin = math.ceil(scale) + 2
    edges = (row[known].min(), column[known].min(), row[known].max(), column[known].max())
    top, left, bottom, right = (float(np.clip(edge, -1e8, 1e8)) for edge in edges)
    return Block(
        math.floor(top) - margin, math.floor(left) - margin, math.ceil(bottom) + margin, math.ceil(right) + margin
    )


def gather(
    values: NDArray[np.float32], block: Block, nodes: Positions, part: Block, *, scale: float
) -> NDArray[np.float32]:
    """The target pixels of `part`: bilinear, or the mean of the ground that they cover where that is twice as coarse.

    Args:
        values: (y, x) of `block`, NaN where nodata.
        block: which source pixels they are.
        nodes: from `positions` for this `part`.
        part: which pixels of the frame are wanted.
        scale: source pixels along a target pixel.

    Returns:
        (rows, columns) of `part`, NaN where less than half of what a pixel looks at is valid.
    """
    steps = math.ceil(scale) if scale >= COARSER else 1
    look: Callable[[NDArray[np.float32], Block, Positions], _Weighed] = _nearest if steps > 1 else _bilinear
    total, weight = np.zeros(part.shape, np.float32), np.zeros(part.shape, np.float32)
    for down in range(steps):
        for across in range(steps):
            at = (down + 0.5) / steps, (across + 0.5) / steps
            column, row = (_interpolated(node, part, at) for node in nodes)
            value, share = look(values, block, (column, row))
            total += value
            weight += share
    enough = weight >= np.float32(0.5 * steps * steps - 1e-4)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(enough, total / weight, np.float32(np.nan))


def _taken(
    values: NDArray[np.float32], row: NDArray[np.int64], column: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rows, columns = values.shape
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    found = values[np.where(inside, row, 0), np.where(inside, column, 0)]
    valid = inside & np.isfinite(found)
    return np.where(valid, found, np.float32(0)), valid


def _whole(position: NDArray[np.float64]) -> NDArray[np.int64]:
    """The pixel at a place; far outside every image where there is none."""
    far = 2.0**40
    whole: NDArray[np.int64] = np.floor(np.nan_to_num(position, nan=-far).clip(-far, far)).astype(np.int64)
    return whole


def _nearest(values: NDArray[np.float32], block: Block, places: Positions) -> _Weighed:
    column, row = places
    found, valid = _taken(values, _whole(row) - block.top, _whole(column) - block.left)
    return found, valid.astype(np.float32)


def _bilinear(values: NDArray[np.float32], block: Block, places: Positions) -> _Weighed:
    """The sum of the four pixels around each place by their weights, and the sum of the weights of the valid ones.

    Weights come from the place in the whole image, not in the block: the same bits whatever block was read.
    """
    column, row = (place - 0.5 for place in places)
    left, top = _whole(column) - block.left, _whole(row) - block.top
    across, down = column % 1.0, row % 1.0
    total, weight = np.zeros(column.shape, np.float32), np.zeros(column.shape, np.float32)
    for below in (0, 1):
        for right in (0, 1):
            share = ((across if right else 1 - across) * (down if below else 1 - down)).astype(np.float32)
            found, valid = _taken(values, top + below, left + right)
            total += np.where(valid, found * share, np.float32(0))
            weight += np.where(valid, share, np.float32(0))
    return total, weight
