"""Polygons in degrees: checked, repaired, brought into [-180, 180], written in one canonical form, and measured.

Everything here takes and gives EPSG:4326 with x = longitude. Edges are straight in degrees.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.errors import AreaError, EarthmapWarning
from earthmap.grid.projection import gap_in_degrees, polygons_of, reproject, split_antimeridian

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

QUANTUM_DEG = 1e-9
"""Coordinates of an area are whole multiples of this (0.1 mm), so that equal areas written differently are equal."""
_FOREIGN_TOLERANCE_M = 0.05  # an eighth of the finest pixel in use, 0.4 m
_SEMI_MAJOR_M, _FLATTENING = 6_378_137.0, 1 / 298.257223563


def areal(geometries: BaseGeometry, *, source: str) -> BaseGeometry:
    """The polygons among `geometries`. Raises AreaError where there are none."""
    if geometries.is_empty:
        raise AreaError(f"{source} is empty", expected="at least one polygon")
    parts = shapely.get_parts(shapely.get_parts(geometries))
    polygons = [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
    if not polygons:
        kinds = ", ".join(sorted({part.geom_type for part in parts}))
        raise AreaError(
            f"{source} holds no polygon, only {kinds}",
            expected="polygons: an area, not points or lines",
            fix="buffer them first, for example geometry.buffer(500) in a CRS in metres",
        )
    return shapely.force_2d(shapely.MultiPolygon(polygons))


def check_finite(geometry: BaseGeometry, *, source: str) -> None:
    """Raise AreaError where a coordinate is NaN or infinite."""
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise AreaError(f"{source} has a coordinate that is NaN or infinite", expected="finite numbers")


def check_degrees(geometry: BaseGeometry, *, source: str) -> None:
    """Raise AreaError where coordinates are not longitudes and latitudes that can be unwrapped."""
    west, south, east, north = (float(edge) for edge in geometry.bounds)
    if south < -90.0 or north > 90.0:
        worst = north if north > 90.0 else south
        if west >= -90.0 and east <= 90.0 and south >= -360.0 and north <= 360.0:
            raise AreaError(
                f"{source} has latitude {worst:g}: its coordinates look swapped",
                expected="longitude before latitude, latitudes from -90 to 90",
                fix="swap the two numbers of each position",
            )
        raise AreaError(
            f"{source} has latitude {worst:g}",
            expected="degrees, latitudes from -90 to 90",
            fix="give coordinates in degrees, or a file that names its CRS",
        )
    if west < -360.0 or east > 360.0 or east - west > 360.0:
        worst = east if east > 360.0 or east > -west else west
        raise AreaError(
            f"{source} has longitude {worst:g}, which cannot be unwrapped",
            expected="longitudes from -180 to 180, or from 0 to 360, spanning at most one turn",
            fix="give longitudes in degrees, or a file that names its CRS",
        )


def canonical(geometry: BaseGeometry, *, source: str = "the area") -> shapely.MultiPolygon:
    """The same ground as one repaired MultiPolygon in canonical form: equal ground has equal WKB.

    Raises:
        AreaError: for a geometry without polygons, without area, not finite, or outside the range of degrees.
    """
    polygons = areal(geometry, source=source)
    check_finite(polygons, source=source)
    check_degrees(polygons, source=source)
    try:
        ground = _canonical(polygons)
    except shapely.errors.GEOSException as error:
        raise AreaError(
            f"{source} cannot be repaired: {error}", expected="polygons whose rings do not cross"
        ) from error
    if ground.is_empty:
        raise AreaError(
            f"{source} has no area", expected="a polygon that covers ground", fix="buffer a line or a point"
        )
    return ground


def _canonical(polygons: BaseGeometry) -> shapely.MultiPolygon:
    ground = split_antimeridian(_repaired(shapely.get_parts(polygons)))
    ground = polygons_of(shapely.set_precision(ground, QUANTUM_DEG))
    # The grid of set_precision would stick to every later result; WKB does not carry it. -0.0 and 0.0 are one number.
    ground = shapely.transform(shapely.from_wkb(shapely.to_wkb(ground)), lambda xy: xy + 0.0)
    # Normalised first: a ring then starts at a true corner, which dropping straight-on vertices never removes.
    ground = shapely.normalize(shapely.simplify(shapely.normalize(ground), 0.0))
    parts = [part for part in shapely.get_parts(ground) if part.area > 0.0]
    return shapely.normalize(shapely.MultiPolygon(parts))


def _repaired(parts: NDArray[np.object_]) -> BaseGeometry:
    repaired = shapely.make_valid(shapely.remove_repeated_points(parts), method="structure", keep_collapsed=False)
    return polygons_of(shapely.union_all([polygons_of(part) for part in repaired]))


def transformed(polygons: BaseGeometry, crs: pyproj.CRS, *, source: str) -> BaseGeometry:
    """Polygons of any CRS in degrees, edges densified first so that they stay within 5 cm; raises AreaError."""
    check_finite(polygons, source=source)
    if is_lonlat(crs):
        return _the_short_way(polygons, source=source)
    try:
        transformer = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise AreaError(
            f"{source} is in {crs.name}, which has no place on the Earth",
            expected="a CRS that can be brought to EPSG:4326",
            fix="write the file again with a known CRS",
        ) from error

    def to(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        longitude, latitude = transformer.transform(x, y)
        if crs.is_geographic:  # PROJ wraps longitudes; the drawing's own turn is kept
            longitude = longitude + 360.0 * np.round((x - longitude) / 360.0)
        return np.asarray(longitude, float), np.asarray(latitude, float)

    step = 0.25 if crs.is_geographic else 50_000.0
    good = np.isfinite(to(*shapely.get_coordinates(polygons).T)).all()
    if good:
        image = reproject(polygons, to, gap=gap_in_degrees, tolerance_m=_FOREIGN_TOLERANCE_M, step=step)
        good = np.isfinite(shapely.get_coordinates(image)).all()
    if not good:
        raise AreaError(
            f"{source} has coordinates outside the range of its CRS, {crs.name}",
            expected="coordinates in that CRS",
            fix="check the CRS that the file names",
        )
    return image if crs.is_geographic else _unwound(image)


def _the_short_way(polygons: BaseGeometry, *, source: str) -> BaseGeometry:
    """The polygons, those whose rings jump over the antimeridian as they were meant; warns where there are any.

    RFC 7946 (3.1.9) asks for geometries to be cut there; map tools write 179, then -179, which means 2° and not 358°.
    A ring is read so where it jumps by more than half a turn, less than a whole one, and the short way round is
    narrower than half a turn, or goes around a pole beyond 60° of latitude.
    """
    parts = shapely.get_parts(polygons)
    meant = [_unwound_polygon(part) if _jumps(part) else part for part in parts]
    if not any(_jumps(part) for part in parts):
        return polygons
    warnings.warn(
        f"{source} has a ring that jumps by more than 180 degrees of longitude: it is read as crossing the antimeridian"
        f" (or around the pole), the short way; for the long way give west,south,east,north",
        EarthmapWarning,
        stacklevel=2,
    )
    return shapely.union_all([polygons_of(part) for part in meant])


def as_meant(geometry: BaseGeometry) -> BaseGeometry:
    """A footprint as its catalogue meant it, valid and split at the antimeridian, whatever way it is written.

    Rings that jump over the antimeridian or go around a pole are read as an area's are; longitudes may leave
    [-180, 180] by a turn. What is no polygon comes back as it is.
    """
    if shapely.get_dimensions(geometry) != 2:
        return geometry
    parts = shapely.get_parts(shapely.get_parts(geometry))
    west, _, east, _ = geometry.bounds
    if west >= -180.0 and east <= 180.0 and not any(_jumps(part) for part in parts):
        return _valid(geometry)
    turned = [_unwound_polygon(part) if _jumps(part) else split_antimeridian(_valid(part)) for part in parts]
    return _valid(turned[0] if len(turned) == 1 else shapely.union_all([_valid(part) for part in turned]))


def middle_longitude(geometry: BaseGeometry) -> float:
    """The longitude in the middle of ground that may lie on both sides of the antimeridian; 0 where there is none."""
    if geometry.is_empty:
        return 0.0
    parts = shapely.get_parts(geometry)
    turns = np.radians(shapely.get_x(shapely.centroid(parts)))
    weights = np.maximum(shapely.area(parts), np.finfo(float).tiny)
    return float(np.degrees(np.arctan2((weights * np.sin(turns)).sum(), (weights * np.cos(turns)).sum())))


def _valid(geometry: BaseGeometry) -> BaseGeometry:
    return geometry if geometry.is_valid else shapely.make_valid(geometry)


def _jumps(polygon: BaseGeometry) -> bool:
    """Whether a polygon's shell is written with jumps over the antimeridian."""
    if polygon.geom_type != "Polygon" or polygon.is_empty:
        return False
    xy = shapely.get_coordinates(shapely.get_exterior_ring(polygon))
    steps = np.abs(np.diff(xy[:, 0]))
    if not ((steps > 180.0) & (steps < 360.0)).any():
        return False
    longitude = np.unwrap(xy[:, 0], period=360.0)
    if abs(longitude[-1] - longitude[0]) > 180.0:
        return bool(np.abs(xy[:, 1]).min() >= 60.0 and len(np.unique(np.sign(xy[:, 1]))) == 1)
    return bool(np.ptp(longitude) < 180.0)


def is_lonlat(crs: pyproj.CRS) -> bool:
    """Whether coordinates are already those of EPSG:4326, longitude first."""
    return crs.equals("EPSG:4326", ignore_axis_order=True) or crs.equals("OGC:CRS84", ignore_axis_order=True)


def _unwound(polygons: BaseGeometry) -> BaseGeometry:
    """The polygons with longitudes made continuous along each ring, and opened at a pole that a ring goes around."""
    steps = np.abs(np.diff(shapely.get_coordinates(polygons)[:, 0]))
    if not (steps > 180.0).any():
        return polygons
    return shapely.union_all([_unwound_polygon(part) for part in shapely.get_parts(polygons)])


def _unwound_polygon(polygon: BaseGeometry) -> BaseGeometry:
    shell, *holes = [_unwound_ring(ring) for ring in shapely.get_rings(polygon)]
    return shapely.difference(shell, shapely.union_all(holes)) if holes else shell


def _unwound_ring(ring: BaseGeometry) -> BaseGeometry:
    xy = shapely.get_coordinates(ring)
    xy[:, 0] = np.unwrap(xy[:, 0], period=360.0)
    if abs(xy[-1, 0] - xy[0, 0]) > 180.0:
        pole = 90.0 if xy[:, 1].mean() > 0 else -90.0
        xy = np.vstack([xy, [[xy[-1, 0], pole], [xy[0, 0], pole]]])
    return split_antimeridian(_repaired(np.array([shapely.Polygon(xy)], object)))


def _zone_integral(latitude: Floats) -> Floats:
    """Area in m² for each radian of longitude between the equator and `latitude` on the WGS 84 ellipsoid.

    Snyder 1987, "Map Projections: A Working Manual", equations 3-12 and 10-1.
    """
    e2 = _FLATTENING * (2 - _FLATTENING)
    e, sine = np.sqrt(e2), np.sin(np.radians(latitude))
    half_q = sine / (1 - e2 * sine**2) / 2 + np.arctanh(e * sine) / (2 * e)
    return np.asarray(_SEMI_MAJOR_M**2 * (1 - e2) * half_q)


def area_m2(polygons: BaseGeometry) -> float:
    """Area on the WGS 84 ellipsoid of polygons whose edges are straight in degrees; right around poles too."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    total = 0.0
    for polygon in shapely.get_parts(polygons):
        rings = shapely.get_rings(polygon)
        sizes = [abs(_ring_area(shapely.segmentize(ring, 1.0), nodes, weights)) for ring in rings]
        total += sizes[0] - sum(sizes[1:])
    return total


def _ring_area(ring: BaseGeometry, nodes: Floats, weights: Floats) -> float:
    xy = shapely.get_coordinates(ring)
    start, step = xy[:-1, 1], np.diff(xy, axis=0)
    latitudes = start[:, None] + step[:, 1:] * (nodes + 1) / 2
    return float((np.radians(step[:, 0]) * (_zone_integral(latitudes) @ weights) / 2).sum())


def parse_crs(value: Any, *, source: str) -> pyproj.CRS:
    """The CRS that a file or caller names. Raises AreaError."""
    try:
        return pyproj.CRS.from_user_input(value)
    except (pyproj.exceptions.CRSError, TypeError) as error:
        raise AreaError(
            f"{source} names a CRS that cannot be read: {str(value)[:80]!r}",
            expected="a code such as EPSG:4326 or WKT",
            fix="write the file again with a known CRS",
        ) from error
