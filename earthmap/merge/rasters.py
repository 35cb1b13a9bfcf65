"""The answers of a cell's tiles as one raster on the cell's core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest, Cell, inside, owned_ground, owned_pixels
from earthmap.tasks import UNSEEN, decode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cell_codes(cell: Cell, masks: Mapping[str, bytes | None]) -> NDArray[np.uint8]:
    """(cell_core_px, cell_core_px) codes from the encoded masks by tile_id; 255 where a tile has none."""
    side = cell.grid.cell_core_px
    codes = np.full((side, side), UNSEEN, np.uint8)
    for tile in cell.tiles():
        data = masks.get(tile.id)
        if data is not None:
            codes[tile.core_slices] = decode_mask(data, cell.grid.core_px)
    return codes


def counted_pixels(cell: Cell, area: AreaOfInterest) -> NDArray[np.bool_]:
    """(cell_core_px, cell_core_px): pixels that numbers count, whose centre is the cell's own ground in the area."""
    ground = owned_ground(cell)
    west, south, east, north = zone = cell.zone.strip
    left, low, right, high = bounds = ground.bounds if not ground.is_empty else zone
    if west < left and south < low and right < east and high < north and area.geometry.covers(shapely.box(*bounds)):
        return np.ones(cell.core_geobox.shape, bool)  # most cells: nothing of them is another zone's or outside
    return owned_pixels(cell) & inside(area.geometry, cell.core_geobox)
