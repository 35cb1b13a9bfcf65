"""Pixels, tile coordinates and ground: to and fro, which pixels lie in a geometry, and how large they are.

Pixel coordinates are continuous: (0, 0) is the outer corner of the first pixel and its centre is (0.5, 0.5). Rows count
downwards, columns to the right. Tile coordinates run from 0 to 1 over the whole picture, x to the right, y downwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.errors import GridError
from earthmap.grid.projection import (
    FALSE_EASTING_M,
    HALF_STRIP_DEG,
    SOUTH_NORTHING_M,
    UPS_ORIGIN_M,
    areal_scale,
    areal_scale_cap,
    cap_radius_m,
    central_meridian,
    from_lonlat,
    gap_in_degrees,
    plane_of,
    pole_northing_m,
    polygons_of,
    project,
    reproject,
    split_antimeridian,
    to_lonlat,
    unproject,
    unproject_cap,
    wrap_longitude,
    zone_of_crs,
)
from earthmap.grid.tiling import UTM_NORTH_DEG, UTM_SOUTH_DEG, Cell, Tile, Zone

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import ArrayLike, NDArray
    from odc.geo.geobox import GeoBox

    Floats = NDArray[np.float64]
    Booleans = NDArray[np.bool_]

__all__ = [
    "from_lonlat",
    "inside",
    "lonlat_to_pixel",
    "lonlat_to_tile",
    "owned_pixels",
    "pixel_area_m2",
    "pixel_to_lonlat",
    "tile_to_lonlat",
    "to_lonlat",
]

_SCALE_NODES = 9
_SCALE_REACH_M = 1_500_000.0
_INSIDE_TOLERANCE_PX = 0.001


def _applied(affine: Affine, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def pixel_to_lonlat(geobox: GeoBox, row: ArrayLike, column: ArrayLike) -> tuple[Floats, Floats]:
    """Longitude in [-180, 180) and latitude of continuous pixel coordinates.

    Example:
        >>> box = Cell.parse("utm0_10m_384_31N_c300_32").core_geobox
        >>> lon, lat = pixel_to_lonlat(box, 0.5, 0.5)
    """
    x, y = _applied(geobox.affine, np.asarray(column, float), np.asarray(row, float))
    longitude, latitude = plane_of(geobox.crs).unproject(x, y)
    return wrap_longitude(longitude), latitude


def lonlat_to_pixel(geobox: GeoBox, longitude: ArrayLike, latitude: ArrayLike) -> tuple[Floats, Floats]:
    """Continuous row and column of points, inside the box or not: the inverse of `pixel_to_lonlat` to 1e-6 pixels."""
    x, y = plane_of(geobox.crs).project(np.asarray(longitude, float), np.asarray(latitude, float))
    column, row = _applied(~geobox.affine, x, y)
    return np.asarray(row, float), np.asarray(column, float)


def tile_to_lonlat(tile: Tile, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Longitude and latitude of tile coordinates 0–1 (x right, y down, over the picture with its halo)."""
    side = tile.grid.picture_px
    return pixel_to_lonlat(tile.geobox, np.asarray(y, float) * side, np.asarray(x, float) * side)


def lonlat_to_tile(tile: Tile, longitude: ArrayLike, latitude: ArrayLike) -> tuple[Floats, Floats]:
    """Tile coordinates x, y of points: the inverse of `tile_to_lonlat`."""
    row, column = lonlat_to_pixel(tile.geobox, longitude, latitude)
    return column / tile.grid.picture_px, row / tile.grid.picture_px


def _zone_of(geobox: GeoBox) -> Zone:
    zone = zone_of_crs(geobox.crs)
    if zone is None:
        raise GridError(f"a geobox in {geobox.crs}", expected="a zone's CRS, EPSG:326xx, 327xx, 5041 or 5042")
    return zone


def _centres(geobox: GeoBox) -> tuple[Floats, Floats]:
    """Eastings of the columns' and northings of the rows' centres; those of southern strips mirrored polewards."""
    affine, (rows, columns) = geobox.affine, geobox.shape
    x: Floats = float(affine.c) + float(affine.a) * (np.arange(columns, dtype=np.float64) + 0.5)
    y: Floats = float(affine.f) + float(affine.e) * (np.arange(rows, dtype=np.float64) + 0.5)
    zone = _zone_of(geobox)
    return x, y if zone.north or zone.is_polar else SOUTH_NORTHING_M - y


def _chebyshev(values: Floats) -> tuple[Floats, Floats]:
    """Nodes over the range of `values`, and the (values, nodes) matrix that interpolates from them."""
    middle, half = (values.min() + values.max()) / 2, max(np.ptp(values) / 2, 1.0)
    angles = (2 * np.arange(_SCALE_NODES) + 1) * np.pi / (2 * _SCALE_NODES)
    at_values = np.polynomial.chebyshev.chebvander((values - middle) / half, _SCALE_NODES - 1)
    at_nodes = np.polynomial.chebyshev.chebvander(np.cos(angles), _SCALE_NODES - 1)
    nodes: Floats = np.asarray(middle + half * np.cos(angles), dtype=np.float64)
    weights: Floats = np.asarray(at_values @ np.linalg.inv(at_nodes), dtype=np.float64)
    return nodes, weights


def pixel_area_m2(geobox: GeoBox) -> Floats:
    """True ground area of each pixel in m², (y, x) float64, on the WGS 84 ellipsoid: pixel area / k².

    k is the point scale factor of the zone's projection at the centre (PROJ's `get_factors`), interpolated by
    polynomials of degree 8; within 1e-6 of the true area on the zone's own ground. Farther than 1500 km from the
    central meridian (or pole), where the lattice owns nothing, the value of that distance is given.

    Raises:
        GridError: for a geobox that is not in a zone's CRS.
    """
    zone = _zone_of(geobox)
    x, y = _centres(geobox)
    middle, low, high = FALSE_EASTING_M, 0.0, pole_northing_m()
    if zone.is_polar:
        middle = low = high = UPS_ORIGIN_M
    x = np.clip(x, middle - _SCALE_REACH_M, middle + _SCALE_REACH_M)
    y = np.clip(y, low - _SCALE_REACH_M, high + _SCALE_REACH_M)
    x_nodes, x_weights = _chebyshev(x)
    y_nodes, y_weights = _chebyshev(y)
    scale = 1 / _areal_scale_at(zone, *np.meshgrid(x_nodes, y_nodes))
    pixel = abs(geobox.affine.a * geobox.affine.e)
    return np.asarray(pixel * (y_weights @ scale @ x_weights.T))


def _areal_scale_at(zone: Zone, x: Floats, y: Floats) -> Floats:
    """k² at points of the zone's plane, in a strip with y polewards from the equator."""
    if zone.is_polar:
        return areal_scale_cap(*unproject_cap(x, y, north=zone.north), north=zone.north)
    return areal_scale(*unproject(x, y))


def _around(geobox: GeoBox) -> BaseGeometry:
    """The geobox's ground in degrees, continuous in longitude; a whole cap where it holds a pole."""
    crs, zone = geobox.crs, zone_of_crs(geobox.crs)
    west, south, east, north = geobox.boundingbox
    if plane_of(crs).pole is not None:
        return to_lonlat(shapely.box(west, south, east, north), crs, tolerance_m=abs(geobox.affine.a))
    ring = reproject(
        shapely.box(west, south, east, north),
        plane_of(crs).unproject,
        gap=gap_in_degrees,
        tolerance_m=abs(geobox.affine.a),
        step=50_000.0,
    )
    pole = None if zone is None else pole_northing_m() if zone.north else SOUTH_NORTHING_M - pole_northing_m()
    if zone is None or pole is None or not (south <= pole <= north and west <= FALSE_EASTING_M <= east):
        return ring
    _, low, _, high = ring.bounds
    centre = central_meridian(zone.number)
    return shapely.box(centre - 180.0, low if zone.north else -90.0, centre + 180.0, 90.0 if zone.north else high)


def _crossings(geobox: GeoBox, planar: BaseGeometry) -> Booleans:
    """Pixels whose centre is within polygons of the plane, by the crossings of each row's centre line (even-odd)."""
    rows, columns = geobox.shape
    _, xy, offsets = shapely.to_ragged_array([planar])
    column, row = _applied(~geobox.affine, xy[:, 0], xy[:, 1])
    edges = np.setdiff1d(np.arange(len(xy) - 1), offsets[0][1:-1] - 1)
    r0, r1, c0, c1 = row[edges], row[edges + 1], column[edges], column[edges + 1]
    # Half-open in both directions, so that a centre on a shared edge falls to one side only.
    first = np.ceil(np.minimum(r0, r1) - 0.5).clip(0, rows).astype(np.int64)
    last = np.ceil(np.maximum(r0, r1) - 0.5).clip(0, rows).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(edges)), count)
    at_row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    share = (at_row + 0.5 - r0[edge]) / (r1[edge] - r0[edge])
    at_column = np.ceil(c0[edge] + share * (c1[edge] - c0[edge]) - 0.5).clip(0, columns).astype(np.int64)
    toggles = np.bincount(at_row * (columns + 1) + at_column, minlength=rows * (columns + 1))
    flips = (toggles.reshape(rows, columns + 1)[:, :columns] & 1).astype(bool)
    return np.asarray(np.logical_xor.accumulate(flips, axis=1))


def inside(area: BaseGeometry, geobox: GeoBox) -> Booleans:
    """(y, x) bool: pixels whose centre lies in `area`, polygons in EPSG:4326 with x = longitude in [-180, 180].

    Edges of the area, straight in degrees, are followed within 0.001 pixel.

    Raises:
        GridError: for a geobox whose CRS cannot be read.
    """
    around = _around(geobox)
    ground = split_antimeridian(around)
    reach = shapely.buffer(ground, 1e-9 + 2 * abs(geobox.affine.a) / 111_000.0)
    if plane_of(geobox.crs).pole is not None:  # where a pixel may be many degrees of longitude wide
        reach = shapely.box(-180.0, max(reach.bounds[1], -90.0), 180.0, min(reach.bounds[3], 90.0))
    near = polygons_of(shapely.intersection(area, shapely.box(*reach.bounds)))
    if near.is_empty or not shapely.intersects(near, ground):
        return np.zeros(tuple(geobox.shape), bool)
    if shapely.contains_properly(near, ground) or shapely.covers(near, reach):
        return np.ones(tuple(geobox.shape), bool)
    planar = from_lonlat(near, geobox.crs, tolerance_m=_INSIDE_TOLERANCE_PX * abs(geobox.affine.a))
    return _crossings(geobox, planar)


def _columns_west_of(border_deg: float, x: Floats, y: Floats) -> NDArray[np.int64]:
    """How many pixel centres of each row lie west of a meridian, by bisection: longitude grows along a row."""
    low, high = np.zeros(len(y), np.int64), np.full(len(y), len(x), np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        offset, _ = unproject(x[np.minimum(middle, len(x) - 1)], y)
        west = (offset < border_deg) & (low < high)
        low, high = np.where(west, middle + 1, low), np.where(west, high, np.maximum(middle, low))
    return low


def _rows_below(limit_deg: float, x: Floats, y: Floats, *, included: bool) -> NDArray[np.int64]:
    """How many of the ascending `y` lie before a parallel in each column, by bisection; `included`: or on it."""
    low, high = np.zeros(len(x), np.int64), np.full(len(x), len(y), np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        _, latitude = unproject(x, y[np.minimum(middle, len(y) - 1)])
        below = ((latitude <= limit_deg) if included else (latitude < limit_deg)) & (low < high)
        low, high = np.where(below, middle + 1, low), np.where(below, high, np.maximum(middle, low))
    return low


def owned_pixels(cell: Cell) -> Booleans:
    """(cell_core_px, cell_core_px) bool, row 0 at the top: pixels whose centre the cell's tiles own."""
    x, y = _centres(cell.core_geobox)
    zone = cell.zone
    if zone.is_polar:
        away = np.hypot(x - UPS_ORIGIN_M, (y - UPS_ORIGIN_M)[:, None])
        return np.asarray(away <= cap_radius_m(True) if zone.north else away < cap_radius_m(False))
    columns = np.arange(len(x))
    rows = (y >= 0.0 if zone.north else y > 0.0) & (y <= pole_northing_m())
    # Beyond this the plane ends before the strip's border does; nothing there is owned.
    reach = np.clip(x, FALSE_EASTING_M - 400_000.0, FALSE_EASTING_M + 400_000.0)
    first = np.where(rows, _columns_west_of(-HALF_STRIP_DEG, reach, np.where(rows, y, 0.0)), len(x))
    last = np.where(rows, _columns_west_of(HALF_STRIP_DEG, reach, np.where(rows, y, 0.0)), 0)
    return np.asarray((columns >= first[:, None]) & (columns < last[:, None]) & _before_cap(zone, reach, y))


def _before_cap(zone: Zone, x: Floats, y: Floats) -> Booleans:
    """(y, x) bool: pixel centres of a strip that the cap does not own; `y` polewards, ascending or descending."""
    limit = UTM_NORTH_DEG if zone.north else -UTM_SOUTH_DEG
    if y.max() < project(0.0, limit)[1] - 1.0:
        return np.ones((len(y), len(x)), bool)
    rising = y if y[-1] >= y[0] else y[::-1]
    upright = np.clip(rising, 0.0, pole_northing_m())
    count = _rows_below(limit, x, upright, included=not zone.north)
    below = np.arange(len(y))[:, None] < count
    return below if y[-1] >= y[0] else below[::-1]
