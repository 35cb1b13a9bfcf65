"""Longitude and latitude ↔ the plane of a zone, and geometries carried between them with their edges kept true.

One transverse Mercator serves every strip and both hemispheres: zones differ by their central meridian only, and the
south mirrors the north. PROJ computes it by Poder and Engsager's series (Karney 2011, "Transverse Mercator with an
accuracy of a few nanometers"), which holds from the equator to the pole and beyond it. The caps around the poles are
polar stereographic (UPS).

Longitudes that come out of a strip's plane are continuous: they lie within 180° of the zone's central meridian and may
leave [-180, 180]. `wrap_longitude` and `split_antimeridian` bring them back. In a plane around a pole longitudes turn
once around it; what is carried out of one is cut along four meridians first, so that each piece has plain longitudes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.errors import GridError
from earthmap.grid.tiling import POLAR, UTM_NORTH_DEG, UTM_SOUTH_DEG, Zone

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
UPS_ORIGIN_M = 2_000_000.0
"""Easting and northing of the pole in UPS."""
POLE_TIP_M = 1e-3
"""Ground nearer to a pole than this has no longitudes that could be told apart; it is drawn as the pole."""
_RAYS = (-180.0, -90.0, 0.0, 90.0)
_RAY_TOLERANCE_DEG = 1e-11
_MAX_ROUNDS = 24
_MAX_PARTS = 64


@lru_cache(maxsize=1)
def _transverse_mercator() -> pyproj.Proj:
    return pyproj.Proj("+proj=tmerc +lat_0=0 +lon_0=0 +k=0.9996 +x_0=500000 +y_0=0 +ellps=WGS84 +units=m")


@lru_cache(maxsize=2)
def _polar_stereographic(north: bool) -> pyproj.Proj:
    """UPS of one hemisphere (NGA.SIG.0012; EPSG:5041, 5042)."""
    return pyproj.Proj(
        f"+proj=stere +lat_0={90 if north else -90} +lon_0=0 +k=0.994 +x_0=2000000 +y_0=2000000 +ellps=WGS84 +units=m"
    )


@lru_cache(maxsize=1)
def pole_northing_m() -> float:
    """9 997 964.943 m: the pole's distance from the equator in a zone's plane."""
    return float(_transverse_mercator()(0.0, 90.0)[1])


def project(offset_deg: ArrayLike, latitude: ArrayLike) -> tuple[Floats, Floats]:
    """Easting and northing in metres in the plane of any northern strip.

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


def project_cap(longitude: ArrayLike, latitude: ArrayLike, *, north: bool) -> tuple[Floats, Floats]:
    """Easting and northing in metres in the plane of the cap around a pole (UPS); 180 and -180 are one meridian."""
    x, y = _polar_stereographic(north)(np.asarray(longitude, float), np.asarray(latitude, float))
    return np.asarray(x, float), np.asarray(y, float)


def unproject_cap(x: ArrayLike, y: ArrayLike, *, north: bool) -> tuple[Floats, Floats]:
    """Longitude within ±180 and latitude: the inverse of `project_cap`."""
    longitude, latitude = _polar_stereographic(north)(np.asarray(x, float), np.asarray(y, float), inverse=True)
    return np.asarray(longitude, float), np.asarray(latitude, float)


def areal_scale_cap(longitude: Floats, latitude: Floats, *, north: bool) -> Floats:
    """k² of UPS at points given as in `project_cap`."""
    return np.asarray(_polar_stereographic(north).get_factors(longitude, latitude).areal_scale, float)


@lru_cache(maxsize=2)
def cap_radius_m(north: bool) -> float:
    """How far from the pole the cap's border is in its plane: 666 728 m in the north, 1 116 915 m in the south."""
    _, y = project_cap(0.0, UTM_NORTH_DEG if north else UTM_SOUTH_DEG, north=north)
    return abs(float(y) - UPS_ORIGIN_M)


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
    """The zone whose CRS this is (EPSG:326xx, 327xx, 5041 or 5042); None for any other."""
    code = crs if isinstance(crs, int) else _epsg(crs)
    if code in (5041, 5042):
        return Zone(POLAR, code == 5041)
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
    pole: Pole | None = None
    """The pole that longitudes turn around, where the plane is one around a pole."""


@dataclass(frozen=True, slots=True)
class Pole:
    """A pole in the middle of a plane whose meridians are straight lines out of it."""

    x: float
    y: float
    latitude: float
    """90 or -90."""
    rays: tuple[tuple[float, float], ...]
    """Unit vectors along the meridians -180, -90, 0 and 90."""


def _pole_of(forward: Map) -> Pole | None:
    """The pole that a plane is drawn around, if it is one: both ends of each meridian lie opposite one another."""
    for latitude in (90.0, -90.0):
        try:
            x, y = forward(np.array([*_RAYS, 0.0]), np.array([latitude * 0.9] * 4 + [latitude]))
        except pyproj.exceptions.ProjError:
            continue
        across = np.column_stack([x[:4] - x[4], y[:4] - y[4]])
        length = np.hypot(*across.T)
        opposite = np.abs(across[:2] + across[2:]).max() if np.isfinite(across).all() else np.inf
        if opposite < 1e-6 * length.max() and abs(across[0] @ across[1]) < 1e-6 * length.max() ** 2:
            unit = across / length[:, None]
            return Pole(float(x[4]), float(y[4]), latitude, tuple((float(a), float(b)) for a, b in unit))
    return None


def _cap_plane(zone: Zone) -> Plane:
    forward, inverse = partial(project_cap, north=zone.north), partial(unproject_cap, north=zone.north)
    return Plane(forward, inverse, _pole_of(forward))


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
    return Plane(there.transform, back.transform, _pole_of(there.transform))


def plane_of(crs: Any) -> Plane:
    """The maps of a CRS; a zone's by the series above, any other's by PROJ's choice. Raises GridError."""
    zone = zone_of_crs(crs)
    if zone is None:
        return _other_plane(as_crs(crs))
    return _cap_plane(zone) if zone.is_polar else _zone_plane(zone)


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


def _wedges(pole: Pole, reach: float) -> list[BaseGeometry]:
    """The four quarters between the meridians -180, -90, 0, 90 and 180, without the pole's own millimetre."""
    rays = np.array([*pole.rays, pole.rays[0]])
    centre = np.array([pole.x, pole.y])
    return [
        shapely.Polygon(centre + np.array([POLE_TIP_M * a, reach * a, reach * (a + b), reach * b, POLE_TIP_M * b]))
        for a, b in itertools.pairwise(rays)
    ]


def _quarter_map(plane: Plane, pole: Pole, west: float) -> Map:
    """x, y of one quarter → degrees: plain longitudes, exact on its meridians and at the pole."""

    def to(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        longitude, latitude = plane.unproject(x, y)
        longitude = west + 45.0 + np.mod(longitude - west + 135.0, 360.0) - 180.0
        narrow = np.cos(np.radians(latitude))
        for ray in (west, west + 90.0):
            longitude = np.where(np.abs(longitude - ray) * narrow < _RAY_TOLERANCE_DEG, ray, longitude)
        at_pole = np.abs(latitude - pole.latitude) < 2 * POLE_TIP_M / METRES_PER_DEGREE
        return np.clip(longitude, west, west + 90.0), np.where(at_pole, pole.latitude, latitude)

    return to


def quarters_to_lonlat(
    geometry: BaseGeometry, plane: Plane, pole: Pole, *, tolerance_m: float, step: float = 50_000.0
) -> list[BaseGeometry]:
    """Polygons of a plane around a pole in degrees, as pieces between the meridians -180, -90, 0, 90 and 180.

    Pieces that meet on a meridian have it as a common edge, exactly; at the pole they end in its whole parallel.
    """
    west, south, east, north = geometry.bounds
    reach = 2.0 * float(np.hypot(max(pole.x - west, east - pole.x, 1.0), max(pole.y - south, north - pole.y, 1.0)))
    pieces = []
    for ray, wedge in zip(_RAYS, _wedges(pole, reach), strict=True):
        piece = polygons_of(shapely.intersection(geometry, wedge))
        if not piece.is_empty:
            to = _quarter_map(plane, pole, ray)
            pieces.append(reproject(piece, to, gap=gap_in_degrees, tolerance_m=tolerance_m, step=step))
    return pieces


def _from_quarters(geometry: BaseGeometry, plane: Plane, *, tolerance_m: float) -> BaseGeometry:
    """Polygons in degrees in the plane around a pole, where the parallel ±90 becomes a point and ±180 one line."""
    quarters = [shapely.box(ray, -90.0, ray + 90.0, 90.0) for ray in _RAYS]
    pieces = [polygons_of(shapely.intersection(geometry, quarter)) for quarter in quarters]
    images = [
        reproject(piece, plane.project, gap=gap_in_plane, tolerance_m=tolerance_m, step=0.25)
        for piece in pieces
        if not piece.is_empty
    ]
    valid = [shapely.make_valid(image, method="structure", keep_collapsed=False) for image in images]
    return shapely.union_all([polygons_of(image) for image in valid])


def to_lonlat(geometry: BaseGeometry, crs: Any, *, tolerance_m: float = 0.1) -> BaseGeometry:
    """`geometry` of a projected CRS in EPSG:4326, x = longitude in [-180, 180], split at the antimeridian.

    Vertices are added where a straight edge of the plane is curved in degrees by more than `tolerance_m`. In a plane
    around a pole, what lies around the pole ends in the whole parallel ±90.

    Raises:
        GridError: for a CRS that cannot be read.

    Example:
        >>> to_lonlat(shapely.Point(500000, 0), "EPSG:32631").wkt
        'POINT (3 0)'
    """
    plane = plane_of(crs)
    if plane.pole is not None and shapely.get_dimensions(geometry) == 2:
        return shapely.union_all(quarters_to_lonlat(geometry, plane, plane.pole, tolerance_m=tolerance_m))
    image = reproject(geometry, plane.unproject, gap=gap_in_degrees, tolerance_m=tolerance_m, step=50_000.0)
    return split_antimeridian(image)


def from_lonlat(geometry: BaseGeometry, crs: Any, *, tolerance_m: float = 0.1) -> BaseGeometry:
    """`geometry` of EPSG:4326 (x = longitude) in the plane of a projected CRS.

    Edges, straight in degrees, get vertices where the plane curves them by more than `tolerance_m`. The geometry must
    lie where the plane is good: clip it to the zone's surroundings first.

    Raises:
        GridError: for a CRS that cannot be read.
    """
    plane = plane_of(crs)
    if plane.pole is not None and shapely.get_dimensions(geometry) == 2:
        return _from_quarters(geometry, plane, tolerance_m=tolerance_m)
    return reproject(geometry, plane.project, gap=gap_in_plane, tolerance_m=tolerance_m, step=0.25)


def polygons_of(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons of `geometry` and nothing else, as a Polygon or MultiPolygon (empty where there are none)."""
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    parts = shapely.get_parts(shapely.get_parts(geometry)).tolist()
    return shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"])
