"""GeoJSON as it is met in the wild: any object of RFC 7946, the older `crs` member, rings left open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.errors import AreaError

_KINDS = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""How deep the positions of each kind are nested."""
_EXPECTED = "a GeoJSON Feature, FeatureCollection or geometry"
_MAX_DEPTH = 32


def parse_geojson(value: str | bytes | Mapping[str, Any], *, source: str) -> tuple[BaseGeometry, Any]:
    """Every geometry of a GeoJSON text or mapping as one collection, and the value of its `crs` member or None.

    Raises:
        AreaError: for text that is not JSON, or JSON that is not GeoJSON.
    """
    document = value if isinstance(value, Mapping) else _loaded(value, source)
    if not isinstance(document, Mapping):
        raise AreaError(f"{source} is JSON but not GeoJSON", expected=_EXPECTED)
    with np.errstate(invalid="ignore"):  # NaN is refused later, by name
        geometries = list(_geometries(document, source, 0))
    return shapely.GeometryCollection(geometries), _crs_member(document, source)


def _loaded(text: str | bytes, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AreaError(f"{source} is not JSON: {str(error)[:120]}", expected=_EXPECTED) from error


def _crs_member(document: Mapping[str, Any], source: str) -> Any:
    member = document.get("crs")
    if member is None:
        return None
    properties = member.get("properties") if isinstance(member, Mapping) else None
    name = properties.get("name") if isinstance(properties, Mapping) else None
    if not isinstance(name, str):
        raise AreaError(f"{source} has a crs member without a name", expected='such as "urn:ogc:def:crs:EPSG::32631"')
    return name


def _geometries(item: Any, source: str, depth: int) -> Iterator[BaseGeometry]:
    kind = item.get("type") if isinstance(item, Mapping) else None
    if depth > _MAX_DEPTH:
        raise AreaError(f"{source} nests collections more than {_MAX_DEPTH} deep", expected=_EXPECTED)
    if kind == "Feature":
        if item.get("geometry") is not None:
            yield from _geometries(item["geometry"], source, depth + 1)
    elif kind in ("FeatureCollection", "GeometryCollection"):
        members = item.get("features" if kind == "FeatureCollection" else "geometries")
        if not isinstance(members, (list, tuple)):
            raise AreaError(f"{source} has a {kind} without a list of members", expected=_EXPECTED)
        for member in members:
            yield from _geometries(member, source, depth + 1)
    elif isinstance(kind, str) and kind in _KINDS:
        yield _geometry(kind, item.get("coordinates"), source)
    else:
        raise AreaError(f"{source} is not GeoJSON: its type is {str(kind)[:40]!r}", expected=_EXPECTED)


def _geometry(kind: str, coordinates: Any, source: str) -> BaseGeometry:
    depth = _KINDS[kind]
    if not isinstance(coordinates, (list, tuple)):
        raise AreaError(f"{source} has a {kind} without coordinates", expected="nested lists of numbers")
    if not coordinates:
        return shapely.from_wkt(f"{kind} EMPTY")
    try:
        nested = _positions(coordinates, depth)
        if depth < 2:
            return shapely.MultiPoint(np.atleast_2d(nested)) if "Point" in kind else shapely.LineString(nested)
        if kind == "MultiLineString":
            return shapely.MultiLineString(nested)
        return shapely.MultiPolygon([_polygon(rings) for rings in (nested if depth == 3 else [nested])])
    except (ValueError, TypeError, OverflowError, shapely.errors.GEOSException) as error:
        raise AreaError(
            f"{source} has a {kind} whose coordinates cannot be read: {str(error)[:120]}",
            expected="positions of two numbers, [longitude, latitude], and at least three of them for a ring",
        ) from error


def _positions(nested: Any, depth: int) -> Any:
    if depth > 1:
        return [_positions(member, depth - 1) for member in nested]
    values = np.asarray(nested, dtype=float)
    if values.ndim != depth + 1 or values.shape[-1] < 2:
        raise ValueError("positions are not pairs of numbers")
    return values[..., :2]


def _polygon(rings: list[Any]) -> shapely.Polygon:
    """A polygon; shapely closes rings that were left open."""
    return shapely.Polygon(rings[0], rings[1:]) if rings else shapely.Polygon()
