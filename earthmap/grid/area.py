"""The area: which ground a person asks about, read from whatever they have."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.content import content_key
from earthmap.errors import AreaError, EarthmapWarning
from earthmap.grid.geojson import parse_geojson
from earthmap.grid.lonlat import area_m2, areal, canonical, check_degrees, parse_crs, transformed
from earthmap.grid.projection import wrap_longitude
from earthmap.grid.vector_files import Layer, layer_of, read_layers
from earthmap.grid.wkt import looks_like_wkt, parse_wkt

if TYPE_CHECKING:
    from geopandas import GeoDataFrame, GeoSeries

AreaLike: TypeAlias = Union[
    "AreaOfInterest", Sequence[float], BaseGeometry, "GeoDataFrame", "GeoSeries", Mapping[str, Any], Path, str
]
"""What `AreaOfInterest.normalize` accepts."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?)"
_NUMBERS = re.compile(rf"\s*\(?\[?\s*(?:{_NUMBER})(?:\s*[,;\s]\s*(?:{_NUMBER}))*\s*\]?\)?\s*", re.IGNORECASE)
_FORMS = "a file, a bbox W,S,E,N, WKT or GeoJSON"
_FILE_SUFFIX = re.compile(r"\.(?:geojson|json|gpkg|(?:geo)?parquet|shp|zip|wkt|txt|kml|fgb)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaOfInterest:
    """Polygons in EPSG:4326, x = longitude in [-180, 180], split at the antimeridian, in canonical form.

    Edges are straight in degrees. Equal ground has equal WKB and an equal `content_key()`. Whatever is given is
    repaired, united and normalised. Raises AreaError for what is not ground on the Earth.

    Example:
        >>> AreaOfInterest.from_bbox(5, 45, 6, 46).bounds
        (5.0, 45.0, 6.0, 46.0)
    """

    geometry: shapely.MultiPolygon
    """The polygons, outer rings clockwise as shapely's `normalize` writes them, coordinates multiples of 1e-9°."""

    def __post_init__(self) -> None:
        if not isinstance(self.geometry, BaseGeometry):
            raise AreaError(f"a {type(self.geometry).__name__} is not a geometry", expected="shapely polygons")
        object.__setattr__(self, "geometry", canonical(self.geometry))

    @classmethod
    def from_bbox(cls, west: float, south: float, east: float, north: float) -> AreaOfInterest:
        """The box between two meridians and two parallels; west > east crosses the antimeridian. Raises AreaError."""
        text = f"the bbox {west:g},{south:g},{east:g},{north:g}"
        if not all(map(math.isfinite, (west, south, east, north))):
            raise AreaError(f"{text} has a coordinate that is NaN or infinite", expected="finite numbers")
        corners = shapely.LineString([(west, south), (east, north)])
        if south > north:
            raise AreaError(f"{text} has south {south:g} above north {north:g}", expected="west, south, east, north")
        check_degrees(corners, source=text)
        if west == east or south == north:
            raise AreaError(f"{text} has no area", expected="west, south, east, north with ground between them")
        return cls(geometry=_box(west, south, east, north))

    @classmethod
    def from_wkt(cls, text: str) -> AreaOfInterest:
        """The polygons of a WKT; a `SRID=…;` before it names its CRS. Raises AreaError."""
        return _united([parse_wkt(text, source="the area")], "the area")

    @classmethod
    def from_geojson(cls, value: Mapping[str, Any] | str) -> AreaOfInterest:
        """The polygons of any GeoJSON object, text or mapping; the older `crs` member is obeyed. Raises AreaError.

        A ring that jumps over the antimeridian (179, then -179) is read the short way, with an EarthmapWarning.
        """
        return _united([parse_geojson(value, source="the area")], "the area")

    @classmethod
    def from_file(cls, path: str | Path) -> AreaOfInterest:
        """The polygons of every layer of a file: GeoJSON, GeoPackage, GeoParquet, Shapefile (zipped too), WKT.

        A file that names no CRS is read as EPSG:4326 where its coordinates fit degrees. Raises AreaError.
        """
        return _united(read_layers(Path(path)), f"the area file {path}")

    @classmethod
    def from_geometry(cls, geometry: BaseGeometry, crs: Any = "EPSG:4326") -> AreaOfInterest:
        """The polygons of a shapely geometry in any CRS that pyproj reads, x before y. Raises AreaError."""
        if not isinstance(geometry, BaseGeometry):
            raise AreaError(f"a {type(geometry).__name__} is not a geometry", expected="shapely polygons")
        return _united([(geometry, crs)], "the area")

    @classmethod
    def parse(cls, text: str) -> AreaOfInterest:
        """The area that a command line's text means: an existing file, `W,S,E,N`, WKT or GeoJSON. Raises AreaError."""
        stripped = text.strip()
        if not stripped:
            raise AreaError("the area is empty", expected=_FORMS)
        if _exists(stripped):
            return cls.from_file(stripped)
        if stripped.startswith(("{", "[{")):
            return cls.from_geojson(stripped)
        if looks_like_wkt(stripped):
            return cls.from_wkt(stripped)
        if _NUMBERS.fullmatch(stripped):
            return cls.from_bbox(*_four(re.findall(_NUMBER, stripped, re.IGNORECASE), stripped))
        raise _no_form(stripped)

    @classmethod
    def normalize(cls, area: AreaLike) -> AreaOfInterest:
        """The area that any accepted value means. Raises AreaError."""
        if isinstance(area, AreaOfInterest):
            return area
        if isinstance(area, BaseGeometry):
            return cls.from_geometry(area)
        if isinstance(area, str):
            return cls.parse(area)
        if isinstance(area, Path):
            return cls.from_file(area)
        if isinstance(area, Mapping):
            return cls.from_geojson(area)
        series = getattr(area, "geometry", area)
        if hasattr(series, "crs") and hasattr(series, "geom_type"):
            return _united([layer_of(series)], "the area")
        if isinstance(area, (str, bytes)) or not hasattr(area, "__iter__"):
            raise AreaError(
                f"a {type(area).__name__} is not an area", expected=f"{_FORMS}, a geometry or a GeoDataFrame"
            )
        return cls.from_bbox(*_four(list(area), str(area)))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees; -180 to 180 where the area crosses the antimeridian."""
        west, south, east, north = self.geometry.bounds
        return west, south, east, north

    @property
    def area_km2(self) -> float:
        """Area on the WGS 84 ellipsoid in km²."""
        return area_m2(self.geometry) / 1e6

    def content_key(self) -> str:
        """The key of the ground, however it was written."""
        return content_key("area", shapely.to_wkb(self.geometry, byte_order=1))

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON MultiPolygon (RFC 7946: outer rings anticlockwise; no edge that could be taken for a crossing)."""
        oriented = shapely.segmentize(shapely.orient_polygons(self.geometry), 120.0)
        document: dict[str, Any] = json.loads(shapely.to_geojson(oriented))
        return document


def _united(layers: Sequence[Layer], source: str) -> AreaOfInterest:
    """The area of the polygons of all layers, each brought out of its own CRS."""
    filled = [(geometry, crs) for geometry, crs in layers if not geometry.is_empty]
    kinds = {kind for geometry, _ in filled for kind in shapely.get_dimensions(shapely.get_parts(geometry)).tolist()}
    if 2 not in kinds:
        areal(shapely.GeometryCollection([geometry for geometry, _ in filled]), source=source)
    parts: list[shapely.Polygon] = []
    for geometry, crs in filled:
        if shapely.get_dimensions(geometry) == 2:
            polygons = areal(geometry, source=source)
            known = crs if crs is not None else "OGC:CRS84"
            degrees = transformed(polygons, parse_crs(known, source=source), source=source)
            check_degrees(degrees, source=source)
            parts.extend(shapely.get_parts(degrees))
    area = AreaOfInterest(geometry=shapely.MultiPolygon(parts))
    _tell_crossings(parts, source)
    return area


def _tell_crossings(parts: Sequence[shapely.Polygon], source: str) -> None:
    """Warn where a ring crosses itself, for what it encloses may not be what was meant."""
    faults = [str(shapely.is_valid_reason(part)) for part in parts]
    crossing = next((fault for fault in faults if fault.startswith("Self-intersection")), None)
    if crossing is not None:
        where = crossing.partition("[")[2].rstrip("]").replace(" ", ",")
        warnings.warn(
            f"{source} crosses itself at {where}: all that its rings enclose is taken; draw it without crossings if"
            " less is meant",
            EarthmapWarning,
            stacklevel=2,
        )


def _box(west: float, south: float, east: float, north: float) -> shapely.MultiPolygon:
    """The box, in two parts where it crosses the antimeridian."""
    if west < east:
        return shapely.MultiPolygon([shapely.box(west, south, east, north)])
    west, east = (float(wrap_longitude(edge)) if abs(edge) > 180.0 else edge for edge in (west, east))
    if west < east:
        return shapely.MultiPolygon([shapely.box(west, south, east, north)])
    sides = ((west, 180.0), (-180.0, east))
    return shapely.MultiPolygon([shapely.box(left, south, right, north) for left, right in sides if left < right])


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _four(values: Sequence[Any], text: str) -> tuple[float, float, float, float]:
    if len(values) != 4:
        raise AreaError(f"{text[:80]!r} has {len(values)} numbers", expected="four: west, south, east, north")
    try:
        west, south, east, north = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise AreaError(f"{text[:80]!r} is not a bbox", expected="four numbers: west, south, east, north") from error
    return west, south, east, north


def _no_form(text: str) -> AreaError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    if _FILE_SUFFIX.search(text) or ("/" in text and "\n" not in text and len(text) < 4096):
        return AreaError(f"there is no area file {shown}", expected=_FORMS, fix="check the path")
    return AreaError(f"{shown!r} is not an area", expected=_FORMS, fix="for example --area 5.2,45.1,5.6,45.4")
