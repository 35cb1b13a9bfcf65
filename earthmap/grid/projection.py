"""Longitude and latitude ↔ the plane of a zone, and geometries carried between them with their edges kept true.

One transverse Mercator serves every zone and both hemispheres: zones differ by their central meridian only, and the
south mirrors the north. PROJ computes it by Poder and Engsager's series (Karney 2011, "Transverse Mercator with an
accuracy of a few nanometers"), which holds from the equator to the pole and beyond it.

Longitudes that come out of the plane are continuous: they lie within 180° of the zone's central meridian and may
leave [-180, 180]. `wrap_longitude` and `split_antimeridian` bring them back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.errors import GridError
from earthmap.grid.tiling import Zone

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Map = Callable[[Floats, Floats], tuple[Floats, Floats]]

FALSE_EASTING_M = 500_000.0
"""Easting of a zone's central meridian."""
SOUTH_NORTHING_M = 10_000_000.0
"""Northing of the equator in a southern zone."""
HALF_STRIP_DEG = 3.0
"""From a zone's central meridian to the border of its strip."""
METRES_PER_DEGREE = 111_319.49079327358
"""One degree of the equator on the WGS 84 ellipsoid."""
_MAX_ROUNDS = 24
_MAX_PARTS = 64


@lru_cache(maxsize=1)
def _transverse_mercator() -> pyproj.Proj:
    return pyproj.Proj("+proj=tmerc +lat_0=0 +lon_0=0 +k=0.9996 +x_0=500000 +y_0=0 +ellps=WGS84 +units=m")


@lru_cache(maxsize=1)
def pole_northing_m() -> float:
    """9 997 964.943 m: the pole's distance from the equator in a zone's plane."""
    return float(_transverse_mercator()(0.0, 90.0)[1])


def project(offset_deg: ArrayLike, latitude: ArrayLike) -> tuple[Floats, Floats]:
    """Easting and northing in metres in the plane of any northern zone.

    Args:
        offset_deg: longitude minus the zone's central meridian.
        latitude: degrees; southern ones give negative northings.
    """
    x, y = _transverse_mercator()(np.asarray(offset_deg, float), np.asarray(latitude, float))
    return np.asarray(x, float), np.asarray(y, float)


def unproject(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Degrees from the central meridian (within ±180) and latitude: the inverse of `project`."""
    offset, latitude = _transverse_mercator()(np.asarray(x, float), np.asarray(y, float), inverse=True)
    return np.asarray(offset, float), np.asarray(latitude, float)


def areal_scale(offset_deg: Floats, latitude: Floats) -> Floats:
    """Area in the plane for each area on the ellipsoid, k², at points given as in `project`."""
    return np.asarray(_transverse_mercator().get_factors(offset_deg, latitude).areal_scale, float)


def central_meridian(zone: int) -> float:
    """-177.0 for zone 1, 177.0 for zone 60."""
    return -183.0 + 6.0 * zone


def wrap_longitude(longitude: ArrayLike) -> Floats:
    """Longitudes in [-180, 180); those that are there already are untouched to the last bit."""
    values = np.array(longitude, dtype=float)
    outside = (values < -180.0) | (values >= 180.0)
    if outside.any():
        # Whole turns are subtracted: a remainder would round a longitude just below 180 onto it.
        values[outside] -= 360.0 * np.floor((values[outside] + 180.0) / 360.0)
        values[values >= 180.0] = -180.0
    return values


def zone_of_crs(crs: Any) -> Zone | None:
    """The zone whose CRS this is (EPSG:326xx or 327xx); None for any other."""
    code = crs if isinstance(crs, int) else _epsg(crs)
    if code is not None and 1 <= code % 100 <= 60 and code // 100 in (326, 327):
        return Zone(code % 100, code // 100 == 326)
    return None


def _epsg(crs: Any) -> int | None:
    if isinstance(crs, str) and crs.upper().startswith("EPSG:") and crs[5:].isdigit():
        return int(crs[5:])
    code = getattr(crs, "epsg", None)  # odc-geo's CRS knows it without a search
    return code if isinstance(code, int) else as_crs(crs).to_epsg()


@lru_cache(maxsize=64)
def _crs_of_text(text: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(text)


def as_crs(crs: Any) -> pyproj.CRS:
    """The CRS of a code, text, pyproj or odc-geo object. Raises GridError."""
    if isinstance(crs, pyproj.CRS):
        return crs
    try:
        return _crs_of_text(crs if isinstance(crs, str) else f"EPSG:{crs}" if isinstance(crs, int) else str(crs))
    except pyproj.exceptions.CRSError as error:
        raise GridError(f"{str(crs)[:80]!r} is not a CRS", expected="a code such as EPSG:32631") from error


@dataclass(frozen=True, slots=True)
class Plane:
    """A projected CRS as a pair of maps between its plane and continuous longitude, latitude."""

    project: Map
    """Longitude, latitude → x, y."""
    unproject: Map
    """x, y → longitude (continuous), latitude."""


def _zone_plane(zone: Zone) -> Plane:
    centre = central_meridian(zone.number)
    south = not zone.north

    def forward(longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
        x, y = project(np.asarray(longitude, float) - centre, latitude)
        return x, y + SOUTH_NORTHING_M if south else y

    def inverse(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        offset, latitude = unproject(x, np.asarray(y, float) - SOUTH_NORTHING_M if south else y)
        return offset + centre, latitude

    return Plane(forward, inverse)


@lru_cache(maxsize=64)
def _other_plane(crs: pyproj.CRS) -> Plane:
    there = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    back = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    return Plane(there.transform, back.transform)


def plane_of(crs: Any) -> Plane:
    """The maps of a CRS; a zone's by the series above, any other's by PROJ's choice. Raises GridError."""
    zone = zone_of_crs(crs)
    return _zone_plane(zone) if zone else _other_plane(as_crs(crs))


def gap_in_plane(x0: Floats, y0: Floats, x1: Floats, y1: Floats) -> Floats:
    """Distance in metres between points of a plane."""
    return np.hypot(x1 - x0, y1 - y0)


def gap_in_degrees(lon0: Floats, lat0: Floats, lon1: Floats, lat1: Floats) -> Floats:
    """Distance in metres between near points given in degrees."""
    east = (np.mod(lon1 - lon0 + 180.0, 360.0) - 180.0) * np.cos(np.radians((lat0 + lat1) / 2))
    return np.hypot(east, lat1 - lat0) * METRES_PER_DEGREE


class _Path(NamedTuple):
    """Vertices of many lines in one array, in the source and in the target."""

    x: Floats
    y: Floats
    to_x: Floats
    to_y: Floats
    joined: NDArray[np.bool_]
    """True where a vertex and the next one are of one line; one shorter than the vertices."""


def _split(path: _Path, parts: NDArray[np.int64], to: Map) -> _Path:
    """The path with each stretch cut into `parts` equal pieces of the source."""
    start = np.repeat(np.arange(len(parts)), parts)
    step = np.arange(len(start)) - np.repeat(np.cumsum(parts) - parts, parts)
    share = step / parts[start]
    fresh = step > 0
    x, y, to_x, to_y = (
        np.append(old[start] + share * (old[start + 1] - old[start]), old[-1])
        for old in (path.x, path.y, path.to_x, path.to_y)
    )
    # Vertices that were there are kept to the last bit; only the fresh ones are mapped.
    where = np.flatnonzero(fresh)
    to_x[where], to_y[where] = to(x[where], y[where])
    return _Path(x, y, to_x, to_y, path.joined[start])


def _excess(path: _Path, to: Map, gap: Callable[..., Floats]) -> Floats:
    """How far each stretch's image is from the straight line between the images of its ends, in metres."""
    true_x, true_y = to((path.x[:-1] + path.x[1:]) / 2, (path.y[:-1] + path.y[1:]) / 2)
    chord_x, chord_y = (path.to_x[:-1] + path.to_x[1:]) / 2, (path.to_y[:-1] + path.to_y[1:]) / 2
    distance = gap(true_x, true_y, chord_x, chord_y)
    return np.where(path.joined & np.isfinite(distance), distance, 0.0)


def _densified(path: _Path, to: Map, *, gap: Callable[..., Floats], tolerance_m: float, step: float) -> _Path:
    length = np.hypot(np.diff(path.x), np.diff(path.y))
    parts = np.where(path.joined & np.isfinite(length), np.ceil(length / step), 1).clip(1, 1_000_000)
    path = _split(path, parts.astype(np.int64), to)
    for _ in range(_MAX_ROUNDS):
        excess = _excess(path, to, gap)
        if not (excess > tolerance_m).any():
            break
        # The distance falls with the square of the pieces' length.
        path = _split(path, np.ceil(np.sqrt(excess / tolerance_m)).clip(1, _MAX_PARTS).astype(np.int64), to)
    return path


def reproject(
    geometry: BaseGeometry, to: Map, *, gap: Callable[..., Floats], tolerance_m: float, step: float
) -> BaseGeometry:
    """`geometry` under the map `to`, vertices added where a straight edge of the source is curved in the target.

    Args:
        geometry: points, lines or polygons of one kind, single or multi; a third coordinate is dropped.
        to: the map, vectorised.
        gap: distance in metres in the target.
        tolerance_m: how far the image of an edge may be from what is returned.
        step: no edge of the source is left longer than this, in units of the source.
    """
    if geometry.geom_type == "GeometryCollection":
        parts = [
            reproject(part, to, gap=gap, tolerance_m=tolerance_m, step=step) for part in shapely.get_parts(geometry)
        ]
        return shapely.GeometryCollection(parts)
    if geometry.is_empty:
        return geometry
    if geometry.geom_type in ("Point", "MultiPoint"):
        return shapely.transform(geometry, lambda xy: np.column_stack(to(xy[:, 0], xy[:, 1])))
    kind, coordinates, offsets = shapely.to_ragged_array([_plain_line(shapely.force_2d(geometry))])
    x, y = np.ascontiguousarray(coordinates[:, 0]), np.ascontiguousarray(coordinates[:, 1])
    joined = np.ones(len(x) - 1, bool)
    joined[offsets[0][1:-1] - 1] = False
    to_x, to_y = to(x, y)
    path = _Path(x, y, np.asarray(to_x, float), np.asarray(to_y, float), joined)
    with np.errstate(invalid="ignore"):  # what has no image stays infinite, for the caller to judge
        path = _densified(path, to, gap=gap, tolerance_m=tolerance_m, step=step)
    ends = np.concatenate([[0], np.flatnonzero(~path.joined) + 1, [len(path.x)]]).astype(np.int64)
    image: BaseGeometry = shapely.from_ragged_array(
        kind, np.column_stack([path.to_x, path.to_y]), cast("Any", (ends, *offsets[1:]))
    )[0]
    return image


def _plain_line(geometry: BaseGeometry) -> BaseGeometry:
    return shapely.LineString(geometry.coords) if geometry.geom_type == "LinearRing" else geometry


def split_antimeridian(geometry: BaseGeometry) -> BaseGeometry:
    """`geometry`, whose longitudes may leave [-180, 180] by a turn, cut at the antimeridian and brought back."""
    west, _, east, _ = geometry.bounds if not geometry.is_empty else (0.0, 0.0, 0.0, 0.0)
    if west >= -180.0 and east <= 180.0:
        return geometry
    pieces = []
    for turn in range(math.floor((west + 180.0) / 360.0), math.floor((east + 180.0) / 360.0) + 1):
        band = shapely.box(360.0 * turn - 180.0, -91.0, 360.0 * turn + 180.0, 91.0)
        piece = shapely.intersection(geometry, band)
        if not piece.is_empty and piece.geom_type != "GeometryCollection":
            pieces.append(_turned(piece, turn))
        elif not piece.is_empty:
            pieces.extend(_turned(part, turn) for part in shapely.get_parts(piece))
    top = max(shapely.get_dimensions(pieces), default=-1)
    return shapely.union_all([piece for piece in pieces if shapely.get_dimensions(piece) == top])


def _turned(geometry: BaseGeometry, turn: int) -> BaseGeometry:
    return shapely.transform(geometry, lambda xy: np.clip(xy - [360.0 * turn, 0.0], [-180.0, -91.0], [180.0, 91.0]))


def to_lonlat(geometry: BaseGeometry, crs: Any, *, tolerance_m: float = 0.1) -> BaseGeometry:
    """`geometry` of a projected CRS in EPSG:4326, x = longitude in [-180, 180], split at the antimeridian.

    Vertices are added where a straight edge of the plane is curved in degrees by more than `tolerance_m`. A polygon
    around a pole is not for this function: `AreaOfInterest.from_geometry` opens it there.

    Raises:
        GridError: for a CRS that cannot be read.

    Example:
        >>> to_lonlat(shapely.Point(500000, 0), "EPSG:32631").wkt
        'POINT (3 0)'
    """
    image = reproject(geometry, plane_of(crs).unproject, gap=gap_in_degrees, tolerance_m=tolerance_m, step=50_000.0)
    return split_antimeridian(image)


def from_lonlat(geometry: BaseGeometry, crs: Any, *, tolerance_m: float = 0.1) -> BaseGeometry:
    """`geometry` of EPSG:4326 (x = longitude) in the plane of a projected CRS.

    Edges, straight in degrees, get vertices where the plane curves them by more than `tolerance_m`. The geometry must
    lie where the plane is good: clip it to the zone's surroundings first.

    Raises:
        GridError: for a CRS that cannot be read.
    """
    return reproject(geometry, plane_of(crs).project, gap=gap_in_plane, tolerance_m=tolerance_m, step=0.25)


def polygons_of(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons of `geometry` and nothing else, as a Polygon or MultiPolygon (empty where there are none)."""
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    parts = shapely.get_parts(shapely.get_parts(geometry)).tolist()
    return shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"])
