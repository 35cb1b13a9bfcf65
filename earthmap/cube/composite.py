"""Median composites: per pixel the median of several observations, from their groups in the cube.

Every pixel follows from the same pixel of its members and from nothing else, so that it has the same bits whatever
block it is computed in. Members are groups of their own, read and kept as any other: their failures, their retries
and their reuse are those of every observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from earthmap.cube.cells import CellPixels, TileFailure
from earthmap.cube.plan import CellRead
from earthmap.cube.store import CHUNKS, CellGroup
from earthmap.errors import GridError
from earthmap.sensors.masks import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

BADNESS = (
    Reason.CLEAR, Reason.SNOW, Reason.UNKNOWN, Reason.DARK, Reason.SHADOW, Reason.CIRRUS, Reason.SATURATED,
    Reason.LAYOVER, Reason.CLOUD, Reason.NODATA,
)  # fmt: skip
"""Reasons from the best to the worst: where no look is clear, those of the least bad reason make the pixel."""

_HALF = np.float32(0.5)


def compose(read: CellRead, groups: Sequence[CellGroup]) -> CellPixels:
    """The composite of a cell from its members' groups.

    A tile that a member lacks for a cause that will not pass is a look less. One that it lacks for a cause that may
    pass has failed, and so has one that no member shows, or the pixels would depend on the weather of the network.
    It holds one row of blocks of one band of every member at a time, beside the result.

    Raises:
        GridError: where there are no groups.
        StorageError: when a group cannot be read.
    """
    if not groups:
        raise GridError(f"a composite of cell {read.cell.id} without observations", expected="one or more groups")
    side = read.cell.grid.cell_px
    data = np.full((len(read.bands), side, side), np.nan, np.float32)
    mask, looks = np.empty((side, side), np.uint8), np.empty((side, side), np.uint8)
    step = -(-side // CHUNKS)
    for start in range(0, side, step):
        rows = slice(start, min(start + step, side))
        masks = np.stack([group.read_rows("mask", rows) for group in groups])
        mask[rows], looks[rows], chosen = best_looks(masks)
        for number, band in enumerate(read.bands):
            having = [place for place, group in enumerate(groups) if band in group.manifest.bands]
            values = np.stack([groups[place].read_rows("data", rows, band=band) for place in having])
            data[number, rows] = median(values, chosen[having])
    failures = _failures(read, groups)
    _blank(read, data, mask, looks, {failure.tile_id for failure in failures})
    return CellPixels(bands=read.bands, data=data, mask=mask, failures=failures, looks=looks)


def best_looks(masks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """Which looks make each pixel.

    Args:
        masks: (look, y, x) codes of `Reason`.

    Returns:
        (y, x) the best reason, (y, x) the number of clear looks, (look, y, x) True for the looks of the best reason.
    """
    rank = np.full(256, len(BADNESS), np.uint8)
    rank[list(BADNESS)] = np.arange(len(BADNESS), dtype=np.uint8)
    ranks = rank.take(masks)
    best = ranks.min(axis=0)
    codes = np.array([*BADNESS, Reason.NODATA], np.uint8)
    chosen = (ranks == best) & (best < rank[Reason.NODATA])
    return codes.take(best), (masks == Reason.CLEAR).sum(axis=0).astype(np.uint8), chosen


def median(values: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Median over axis 0 of the `chosen` numbers that are not NaN; NaN where there is none.

    Of an even count the mean of the middle two, in float32. SAR comes in linear power, and the mean is one of power.

    Args:
        values: (look, y, x).
        chosen: of the same shape.
    """
    ordered = np.sort(np.where(chosen, values, np.float32(np.nan)), axis=0)  # NaN last
    count = np.isfinite(ordered).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    high = np.minimum(high, np.maximum(count - 1, 0))
    lower, upper = (np.take_along_axis(ordered, place[None], axis=0)[0] for place in (low, high))
    result: NDArray[np.float32] = (lower + upper) * _HALF + np.float32(0)  # -0.0, which sorts anywhere, becomes 0.0
    return result


def _failures(read: CellRead, groups: Sequence[CellGroup]) -> tuple[TileFailure, ...]:
    found = []
    for tile in read.cell.tiles():
        lost = [failure for group in groups for failure in group.manifest.failures if failure.tile_id == tile.id]
        passing = [failure for failure in lost if not failure.lasting]
        if passing or len(lost) == len(groups):
            found.append((passing or lost)[0])
    return tuple(found)


def _blank(
    read: CellRead, data: NDArray[np.float32], mask: NDArray[np.uint8], looks: NDArray[np.uint8], failed: set[str]
) -> None:
    """Make the cores of failed tiles nodata, in place."""
    halo = read.cell.grid.halo_px
    for tile in read.cell.tiles():
        if tile.id in failed:
            rows, columns = (slice(part.start + halo, part.stop + halo) for part in tile.core_slices)
            data[:, rows, columns] = np.nan
            mask[rows, columns] = np.uint8(Reason.NODATA)
            looks[rows, columns] = 0
