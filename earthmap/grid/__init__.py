"""Where: areas, the lattice of tiles and cells, who owns which ground, and pixels on the ground."""

from earthmap.grid.area import AreaLike, AreaOfInterest
from earthmap.grid.ownership import (
    Owners,
    cells_touching,
    owned_ground,
    owned_grounds,
    owner,
    owns_ground,
    tiles_touching,
    touched,
)
from earthmap.grid.projection import from_lonlat, split_antimeridian, to_lonlat
from earthmap.grid.tiling import CELL_TILES, CORE_PX, Cell, Grid, Tile, Zone, format_metres
from earthmap.grid.transforms import (
    inside,
    lonlat_to_pixel,
    lonlat_to_tile,
    owned_pixels,
    pixel_area_m2,
    pixel_to_lonlat,
    tile_to_lonlat,
)

__all__ = [
    "CELL_TILES",
    "CORE_PX",
    "AreaLike",
    "AreaOfInterest",
    "Cell",
    "Grid",
    "Owners",
    "Tile",
    "Zone",
    "cells_touching",
    "format_metres",
    "from_lonlat",
    "inside",
    "lonlat_to_pixel",
    "lonlat_to_tile",
    "owned_ground",
    "owned_grounds",
    "owned_pixels",
    "owner",
    "owns_ground",
    "pixel_area_m2",
    "pixel_to_lonlat",
    "split_antimeridian",
    "tile_to_lonlat",
    "tiles_touching",
    "to_lonlat",
    "touched",
]
