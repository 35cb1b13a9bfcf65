"""Who owns which ground: one tile for every point of the Earth, and the cells and tiles that an area touches.

A tile owns its core ∩ its zone's plain 6° strip of one hemisphere, or ∩ the cap around a pole. Strips are half-open,
[west, east) and [south, north); longitude 180 is -180, latitude 0 is north, and 84 is the cap's.

In its plane a strip is symmetric about the central meridian and narrows polewards, and its polar border bends polewards
on both sides; a cap is a disc. That is what makes the questions below answerable from corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.errors import GridError
from earthmap.grid.area import AreaOfInterest
from earthmap.grid.projection import (
    FALSE_EASTING_M,
    HALF_STRIP_DEG,
    SOUTH_NORTHING_M,
    UPS_ORIGIN_M,
    cap_radius_m,
    central_meridian,
    from_lonlat,
    gap_in_degrees,
    polygons_of,
    project,
    project_cap,
    reproject,
    to_lonlat,
    unproject,
    wrap_longitude,
)
from earthmap.grid.tiling import CELL_TILES, POLAR, UTM_NORTH_DEG, UTM_SOUTH_DEG, Cell, Grid, Tile, Zone

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]

BORDER_TOLERANCE_PX = 0.01
"""How far the border that `owned_ground` draws may be from a true lattice line, in pixels."""
MAX_TILES = 50_000_000
"""More tiles than this are not listed at once: they would not fit into memory."""
_AREA_TOLERANCE_PX = 0.001
_STRIP_REACH_M = 340_000.0  # the strip's border is 333 979 m from the central meridian at the equator, less elsewhere
_NOISE = 1e-12  # of a tile's area: what rounding leaves where geometries only touch


class Owners(NamedTuple):
    """The owner of each of many points, as arrays of one shape."""

    zone: Integers
    """1 to 60, 0 around the poles."""
    north: NDArray[np.bool_]
    """True for latitude 0 and beyond it to the north."""
    row: Integers
    """Tile row, northwards from the anchor."""
    column: Integers
    """Tile column, eastwards from the anchor."""


def zone_number(longitude: ArrayLike) -> Integers:
    """1 to 60: the strip [west, east) that holds each longitude; 180 is -180."""
    values = wrap_longitude(longitude)
    number = np.floor((values + 180.0) / 6.0)
    # The sum above may have been rounded over a border.
    number -= values < 6.0 * number - 180.0
    number += values >= 6.0 * number - 174.0
    return number.astype(np.int64) + 1


def _is_polar(latitude: Floats) -> NDArray[np.bool_]:
    return (latitude >= UTM_NORTH_DEG) | (latitude < UTM_SOUTH_DEG)


def _in_zone_plane(longitude: Floats, latitude: Floats, number: Integers) -> tuple[Floats, Floats]:
    """x and y of points, each in the plane of its own zone."""
    x, y = project(longitude - central_meridian(1) - 6.0 * (number - 1), latitude)
    y = np.where(latitude >= 0.0, y, y + SOUTH_NORTHING_M)
    for north in (True, False):
        cap = (number == POLAR) & ((latitude >= 0.0) == north)
        if cap.any():
            x[cap], y[cap] = project_cap(longitude[cap], latitude[cap], north=north)
    return x, y


def owner(grid: Grid, longitude: ArrayLike, latitude: ArrayLike) -> Owners:
    """The one tile that owns each point.

    Args:
        grid: the lattice.
        longitude: degrees, any turn; broadcast against `latitude`.
        latitude: degrees, -90 to 90.

    Raises:
        GridError: for a latitude beyond 90, NaN or infinity.

    Example:
        >>> owner(Grid(resolution_m=10), [5.0], [45.0]).zone
        array([31])
    """
    lon, lat = np.broadcast_arrays(np.asarray(longitude, float), np.asarray(latitude, float))
    if not (np.isfinite(lon).all() and (np.abs(lat) <= 90.0).all()):
        raise GridError("a point that is not on the Earth", expected="finite longitudes and latitudes from -90 to 90")
    lon = wrap_longitude(lon)
    zone, north = np.where(_is_polar(lat), POLAR, zone_number(lon)), lat >= 0.0
    x, y = _in_zone_plane(lon, lat, zone)
    y = y - np.where(north | (zone == POLAR), 0.0, grid.south_shift_m)
    row, column = (np.floor((axis - grid.anchor_m) / grid.core_m).astype(np.int64) for axis in (y, x))
    return Owners(zone, north, row, column)


def _core_bounds(tile_or_cell: Tile | Cell) -> tuple[float, float, float, float]:
    """West, south, east, north of the core in the zone's plane."""
    grid = tile_or_cell.grid
    side_px = grid.cell_core_px if isinstance(tile_or_cell, Cell) else grid.core_px
    column, row = tile_or_cell.column, tile_or_cell.row
    x, y = grid.origin_m(tile_or_cell.zone)
    west, east = (x + edge * side_px * grid.resolution_m for edge in (column, column + 1))
    south, north = (y + edge * side_px * grid.resolution_m for edge in (row, row + 1))
    return west, south, east, north


@lru_cache(maxsize=2)
def _polar_border(north: bool) -> tuple[float, float]:
    """Latitude of a strip's polar border without its sign, and the northing where it is farthest from the equator."""
    limit = UTM_NORTH_DEG if north else -UTM_SOUTH_DEG
    return limit, float(project(HALF_STRIP_DEG, limit)[1])


def _clip_to_reach(bounds: tuple[float, float, float, float], zone: Zone) -> BaseGeometry:
    """The bounds cut to the zone's surroundings as a box, in a strip with y polewards from the equator."""
    west, south, east, north = bounds
    if zone.is_polar:
        side = cap_radius_m(zone.north) + 1.0
        low, high = UPS_ORIGIN_M - side, UPS_ORIGIN_M + side
        west, south, east, north = max(west, low), max(south, low), min(east, high), min(north, high)
    else:
        if not zone.north:
            south, north = SOUTH_NORTHING_M - north, SOUTH_NORTHING_M - south
        west, east = max(west, FALSE_EASTING_M - _STRIP_REACH_M), min(east, FALSE_EASTING_M + _STRIP_REACH_M)
        south, north = max(south, 0.0), min(north, _polar_border(zone.north)[1] + 1.0)
    return shapely.box(west, south, east, north) if west < east and south < north else shapely.Polygon()


def owned_ground(tile_or_cell: Tile | Cell) -> BaseGeometry:
    """Core ∩ strip or cap as a (Multi)Polygon in EPSG:4326, x = longitude; empty where it owns none.

    The border follows lattice lines within 0.01 pixel, and the zone's meridians and parallels and the pole exactly.
    """
    return owned_grounds([tile_or_cell])[0]


def owned_grounds(members: Sequence[Tile | Cell]) -> list[BaseGeometry]:
    """`owned_ground` of tiles or cells of one grid and zone, faster than one by one and the same to the last bit."""
    if not members:
        return []
    zone, grid = members[0].zone, members[0].grid
    reaches = [_clip_to_reach(_core_bounds(member), zone) for member in members]
    # Half the tolerance: it is measured at the middle of each stretch, which is near the worst place, not always it.
    tolerance_m = BORDER_TOLERANCE_PX * grid.resolution_m / 2
    there = [reach for reach in reaches if not reach.is_empty]
    found = iter((_cap_grounds if zone.is_polar else _strip_grounds)(there, zone, tolerance_m) if there else [])
    grounds = [shapely.Polygon() if reach.is_empty else next(found) for reach in reaches]
    square_m = (1e5**2) * np.cos(np.radians(np.mean(zone.strip[1::2])))
    return [
        shapely.Polygon() if shapely.area(ground) * square_m < _NOISE * grid.core_m**2 else shapely.normalize(ground)
        for ground in grounds
    ]


def _cap_grounds(reaches: Sequence[BaseGeometry], zone: Zone, tolerance_m: float) -> list[BaseGeometry]:
    cap = shapely.box(*zone.strip)
    degrees = (to_lonlat(reach, zone.epsg, tolerance_m=tolerance_m) for reach in reaches)
    return [polygons_of(shapely.intersection(ground, cap)) for ground in degrees]


def _strip_grounds(reaches: Sequence[BaseGeometry], zone: Zone, tolerance_m: float) -> list[BaseGeometry]:
    together: Any = shapely.multipolygons(reaches)
    image = reproject(together, unproject, gap=gap_in_degrees, tolerance_m=tolerance_m, step=50_000.0)
    strip = shapely.box(-HALF_STRIP_DEG, 0.0, HALF_STRIP_DEG, _polar_border(zone.north)[0])
    grounds = [polygons_of(ground) for ground in shapely.intersection(shapely.get_parts(image), strip)]
    centre, sign = central_meridian(zone.number), 1.0 if zone.north else -1.0

    def placed(xy: Floats) -> Floats:
        for border in (-HALF_STRIP_DEG, HALF_STRIP_DEG):
            xy[np.abs(xy[:, 0] - border) < 1e-11, 0] = border
        xy[np.abs(xy[:, 1]) < 1e-11, 1] = 0.0
        return np.column_stack([xy[:, 0] + centre, sign * xy[:, 1] + 0.0])

    return [shapely.transform(ground, placed) for ground in grounds]


def _tile_corners(
    rows: Integers, columns: Integers, grid: Grid, north: NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats, Floats]:
    """West, near, east, far of cores in strips; near and far count polewards from the equator."""
    west, low, east, high = _core_edges(rows, columns, grid)
    top = SOUTH_NORTHING_M - grid.south_shift_m
    near = np.where(north, low, top - high)
    far = np.where(north, high, top - low)
    return west, near, east, far


def _core_edges(rows: Integers, columns: Integers, grid: Grid) -> tuple[Floats, Floats, Floats, Floats]:
    """West, south, east, north of cores in their planes, but for the shift of southern strips."""
    west, east = (grid.anchor_m + (columns + side) * float(grid.core_m) for side in (0, 1))
    low, high = (grid.anchor_m + (rows + side) * float(grid.core_m) for side in (0, 1))
    return np.asarray(west, float), np.asarray(low, float), np.asarray(east, float), np.asarray(high, float)


def _in_strip(rows: Integers, columns: Integers, grid: Grid, north: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cores share ground with their strip."""
    west, near, east, far = _tile_corners(rows, columns, grid, north)
    # The corner nearest to the central meridian and the equator is in the strip wherever any point of the core is …
    aside = np.maximum(0.0, np.maximum(west - FALSE_EASTING_M, FALSE_EASTING_M - east))
    start = np.maximum(near, 0.0)
    limit, highest = (
        np.where(north, one, other) for one, other in zip(_polar_border(True), _polar_border(False), strict=True)
    )
    owned = (far > 0.0) & (start < highest) & (aside < _STRIP_REACH_M)
    offset, _ = unproject(FALSE_EASTING_M + aside[owned], start[owned])
    owned[owned] = (aside[owned] == 0.0) | (offset < HALF_STRIP_DEG)
    # … but of those on one parallel of the plane the farthest from the central meridian is farthest from the pole.
    out = np.minimum(np.maximum(east - FALSE_EASTING_M, FALSE_EASTING_M - west), _STRIP_REACH_M)
    offset, latitude = unproject(FALSE_EASTING_M + out[owned], start[owned])
    owned[owned] = (offset >= HALF_STRIP_DEG) | (latitude < limit[owned])
    return owned


def _in_cap(rows: Integers, columns: Integers, grid: Grid, north: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cores share ground with their cap."""
    west, south, east, far = _core_edges(rows, columns, grid)
    right = np.maximum(0.0, np.maximum(west - UPS_ORIGIN_M, UPS_ORIGIN_M - east))
    up = np.maximum(0.0, np.maximum(south - UPS_ORIGIN_M, UPS_ORIGIN_M - far))
    return np.asarray(np.hypot(right, up) < np.where(north, cap_radius_m(True), cap_radius_m(False)))


def owns_ground(cells: Sequence[Cell]) -> NDArray[np.uint16]:
    """Bit i set where `cell.tiles()[i]` owns any ground at all; one uint16 for each cell."""
    bits = np.zeros(len(cells), np.uint16)
    for grid in dict.fromkeys(cell.grid for cell in cells):
        members = np.array([index for index, cell in enumerate(cells) if cell.grid == grid])
        zones = [cells[i].zone for i in members]
        table = np.array([(cells[i].row, cells[i].column) for i in members], np.int64)
        place = np.arange(CELL_TILES**2)
        rows = (table[:, :1] + 1) * CELL_TILES - 1 - place // CELL_TILES
        columns = table[:, 1:] * CELL_TILES + place % CELL_TILES
        north, polar = np.array([(zone.north, zone.is_polar) for zone in zones]).T[:, :, None]
        north = np.broadcast_to(north, rows.shape)
        owned = np.where(polar, _in_cap(rows, columns, grid, north), _in_strip(rows, columns, grid, north))
        bits[members] = (owned.astype(np.uint32) << place).sum(axis=1).astype(np.uint16)
    return bits


class _Blocks(NamedTuple):
    """Squares of the lattice, `side` tiles long, with what of the area lies in each."""

    rows: Integers
    columns: Integers
    pieces: NDArray[np.object_]


def _chosen(blocks: _Blocks, mask: NDArray[np.bool_]) -> _Blocks:
    return _Blocks(blocks.rows[mask], blocks.columns[mask], blocks.pieces[mask])


def _clipped(blocks: _Blocks, side: int) -> tuple[_Blocks, NDArray[np.bool_]]:
    """The blocks that hold some of the area, and which of them have it in each of their tiles."""
    boxes = shapely.box(blocks.columns, blocks.rows, blocks.columns + side, blocks.rows + side)
    pieces = shapely.intersection(blocks.pieces, boxes)
    for index in np.flatnonzero(shapely.get_type_id(pieces) == shapely.GeometryType.GEOMETRYCOLLECTION):
        pieces[index] = polygons_of(pieces[index])
    area = shapely.area(pieces)
    kept = area > _NOISE
    blocks = _chosen(_Blocks(blocks.rows, blocks.columns, pieces), kept)
    # Where less than one tile is missing, no tile is missing.
    return blocks, area[kept] > side**2 - 0.5


def _quartered(blocks: _Blocks, half: int) -> _Blocks:
    """The four quarters of each block whose own box meets the bounds of the block's piece."""
    rows = np.repeat(blocks.rows, 4) + np.tile([0, 0, half, half], len(blocks.rows))
    columns = np.repeat(blocks.columns, 4) + np.tile([0, half, 0, half], len(blocks.rows))
    pieces = np.repeat(blocks.pieces, 4)
    west, south, east, north = shapely.bounds(pieces).T
    near = (west < columns + half) & (east > columns) & (south < rows + half) & (north > rows)
    return _Blocks(rows[near], columns[near], pieces[near])


def _spread(blocks: _Blocks, side: int) -> tuple[Integers, Integers]:
    """Every tile of the blocks: rows, columns."""
    down, right = np.divmod(np.arange(side * side), side)
    return (blocks.rows[:, None] + down).ravel(), (blocks.columns[:, None] + right).ravel()


def _tiles_under(ground: BaseGeometry) -> tuple[Integers, Integers]:
    """Rows and columns of the unit squares that share some area with `ground`, by halving squares around it."""
    west, south, east, north = shapely.bounds(ground)
    side = 1 << int(np.ceil(np.log2(max(east - west, north - south, 1.0))))
    first_row, first_column = int(south // side) * side, int(west // side) * side
    rows, columns = np.meshgrid(np.arange(first_row, north, side), np.arange(first_column, east, side))
    pieces = np.full(rows.size, ground, object)
    blocks = _Blocks(rows.ravel().astype(np.int64), columns.ravel().astype(np.int64), pieces)
    found = []
    while len(blocks.rows):
        blocks, full = _clipped(blocks, side)
        done = full if side > 1 else np.ones_like(full)
        found.append(_spread(_chosen(blocks, done), side))
        side //= 2
        blocks = _quartered(_chosen(blocks, ~done), max(side, 1))
    rows, columns = (np.concatenate(axis) for axis in zip(*found, strict=True))
    return rows, columns


def _zones_of(area: AreaOfInterest) -> list[tuple[Zone, BaseGeometry]]:
    """The zones that own some of the area, in order, each with its part of the area in EPSG:4326."""
    west, south, east, north = area.bounds
    numbers = [POLAR, *range(int(zone_number(west)), int(zone_number(np.nextafter(east, -np.inf))) + 1)]
    zones = [
        zone
        for number in numbers
        for zone in (Zone(number, False), Zone(number, True))
        if zone.strip[1] < north and zone.strip[3] > south
    ]
    if not zones:
        return []
    strips = shapely.box(*np.array([zone.strip for zone in zones]).T)
    parts = [polygons_of(part) for part in shapely.intersection(area.geometry, strips)]
    return [(zone, part) for zone, part in zip(zones, parts, strict=True) if part.area > 0.0]


def _touched_in_zone(part: BaseGeometry, zone: Zone, grid: Grid) -> tuple[Integers, Integers, NDArray[np.uint16]]:
    """Rows and columns of the cells that own ground of `part`, sorted, and the bits of their tiles."""
    planar = from_lonlat(part, zone.epsg, tolerance_m=_AREA_TOLERANCE_PX * grid.resolution_m)
    ground = shapely.transform(planar, lambda xy: (xy - grid.origin_m(zone)) / grid.core_m)
    if not ground.is_valid:
        ground = polygons_of(shapely.make_valid(ground, method="structure", keep_collapsed=False))
    if not ground.area > _NOISE:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16)
    rows, columns = _tiles_under(ground)
    place = (CELL_TILES - 1 - rows % CELL_TILES) * CELL_TILES + columns % CELL_TILES
    keys = (rows // CELL_TILES << 32) + (columns // CELL_TILES + (1 << 31))
    cells, index = np.unique(keys, return_inverse=True)
    bits = np.zeros(len(cells), np.uint16)
    np.bitwise_or.at(bits, index, np.left_shift(np.uint16(1), place.astype(np.uint16)))
    return cells >> 32, (cells & 0xFFFFFFFF) - (1 << 31), bits


def _check_count(area: AreaOfInterest, grid: Grid) -> None:
    expected = area.area_km2 * 1e6 / grid.core_m**2
    if expected > MAX_TILES:
        raise GridError(
            f"the area of {area.area_km2:.0f} km² needs about {expected:.3g} tiles of {grid.core_m:g} m",
            expected=f"at most {MAX_TILES} tiles at a time",
            fix="ask for a coarser resolution or a smaller area",
        )


def touched(area: AreaOfInterest, grid: Grid) -> tuple[list[Cell], NDArray[np.uint16]]:
    """`cells_touching` and `tiles_touching` of those cells, in one pass.

    Raises:
        GridError: for an area of more than 50 million tiles.
    """
    _check_count(area, grid)
    cells: list[Cell] = []
    bits: list[NDArray[np.uint16]] = []
    for zone, part in _zones_of(area):
        rows, columns, found = _touched_in_zone(part, zone, grid)
        cells += [Cell(grid, zone, row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
        bits.append(found)
    return cells, np.concatenate(bits) if bits else np.empty(0, np.uint16)


def cells_touching(area: AreaOfInterest, grid: Grid) -> list[Cell]:
    """The cells whose owned ground shares some area with `area`, by zone (south before north), row and column.

    Raises:
        GridError: for an area of more than 50 million tiles.

    Example:
        >>> [cell.id for cell in cells_touching(AreaOfInterest.from_bbox(3, 45, 3.01, 45.01), Grid(resolution_m=10))]
        ['utm0_10m_384_31N_c324_32']
    """
    return touched(area, grid)[0]


def tiles_touching(area: AreaOfInterest, cells: Sequence[Cell]) -> NDArray[np.uint16]:
    """Bit i set where the owned ground of `cell.tiles()[i]` shares some area with `area`; one uint16 for each cell.

    Raises:
        GridError: for an area of more than 50 million tiles.
    """
    known: dict[Cell, int] = {}
    for grid in dict.fromkeys(cell.grid for cell in cells):
        touching, bits = touched(area, grid)
        known.update(zip(touching, bits.tolist(), strict=True))
    return np.array([known.get(cell, 0) for cell in cells], np.uint16)
